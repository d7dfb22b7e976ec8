"""Runs a Core ML package: on macOS by the framework, elsewhere by the interpreter.

The interpreter shows that the package is right; how Apple's kernels round it shows on a Mac alone, so
the part below that calls the framework is not covered by tests on other systems.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qdx.backends.contract import check_inputs
from qdx.backends.coreml.artifact import packages_of, read_artifact
from qdx.backends.coreml.lower.package import quiet
from qdx.backends.coreml.mil.interpreter import Interpreter
from qdx.exporter.errors import InvalidBundle, UsageError, first_line, quoted

__all__ = ["CoreMlRunner", "torch_threads"]

# coremltools' names of what may compute a model.
_UNITS: Final = ("ALL", "CPU_AND_GPU", "CPU_AND_NE", "CPU_ONLY")
_OPTION: Final = "compute_units"


class CoreMlRunner:
    """A package opened for many calls.

    Args:
        folder: Holds one package, or is one.
        options: `compute_units` alone, by coremltools' names; the interpreter has no such units and
            computes the same for all of them.
        threads: Processor threads of the interpreter; torch's setting where None.

    Raises:
        InvalidBundle: The package cannot be read.
        TargetRefusal: The interpreter lacks operations of the program.
        UsageError: An option is unknown.
    """

    def __init__(
        self, folder: Path, options: Mapping[str, str], *, threads: int | None = None
    ) -> None:
        units = _compute_units(options)
        program = read_artifact(folder)
        self.inputs = program.inputs
        self.outputs = program.outputs
        on_mac = sys.platform == "darwin"
        self._model = _framework_model(folder, units) if on_mac else Interpreter(program).run
        self._threads = None if on_mac else threads

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Runs once.

        Raises:
            InvalidBundle: An operation does not compute what the package declares.
            UsageError: A name, dtype or shape is not the package's.
        """
        check_inputs(self.inputs, inputs)
        with torch_threads(self._threads):
            results = self._model(inputs)
        return {spec.name: np.asarray(results[spec.name], spec.dtype) for spec in self.outputs}


def _compute_units(options: Mapping[str, str]) -> str:
    unknown = sorted(set(options) - {_OPTION})
    if unknown:
        raise UsageError(
            f"Core ML has no option {quoted(unknown[0])}", hint=f"expected {quoted(_OPTION)}"
        )
    units = options.get(_OPTION, "ALL")
    if units not in _UNITS:
        raise UsageError(
            f"{quoted(_OPTION)} is {quoted(units)}", hint=f"expected one of {', '.join(_UNITS)}"
        )
    return units


def _framework_model(folder: Path, units: str) -> Any:
    """The framework's models, one after the other, as a function of named arrays; on macOS alone."""
    import coremltools

    models = []
    for package in packages_of(folder):
        with quiet():
            try:
                models.append(
                    coremltools.models.MLModel(
                        str(package), compute_units=coremltools.ComputeUnit[units]
                    )
                )
            except Exception as error:
                message = f"{quoted(package)}: Core ML cannot open it, {first_line(error)}"
                raise InvalidBundle(message) from error

    def run(inputs: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        known: dict[str, Any] = dict(inputs)
        for model in models:
            known |= model.predict({name: known[name] for name in model.input_description})
        return known

    return run


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """A number of threads for one call: it belongs to the whole process. None leaves it."""
    import torch

    before = torch.get_num_threads()
    if count is None or count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
