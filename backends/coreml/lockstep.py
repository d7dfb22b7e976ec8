"""A package cut open at the quantizers of its inputs; see `qdx.backends.lockstep`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qdx.backends.coreml.artifact import read_artifact
from qdx.backends.coreml.mil.dtypes import BY_NAME
from qdx.backends.coreml.mil.interpreter import Interpreter
from qdx.backends.coreml.mil.program import (
    MilFunction,
    MilOperation,
    MilProgram,
    MilValue,
    TensorType,
)
from qdx.backends.coreml.run import torch_threads
from qdx.backends.lockstep import UnknownQuantizer, Values, shape_of

__all__ = ["CoreMlLockstep"]

_QUANTIZER: Final = re.compile(r"(quantize_tensor(?:_\d+)?)(?:_cast_fp\d+)*\Z")
_GIVEN: Final = "given_"
_FLOAT32: Final = BY_NAME["float32"]


class CoreMlLockstep:
    """One interpreter over all segments, on macOS too: the framework runs whole packages only.

    Attributes:
        quantizers: Names of the quantizers at which it is cut.
    """

    def __init__(
        self,
        folder: Path,
        shapes: Mapping[str, tuple[int | None, ...]],
        *,
        threads: int | None = None,
    ) -> None:
        """Opens the package.

        Args:
            folder: Holds one package.
            shapes: Shape of each quantizer's input; None for sizes that are open.
            threads: Processor threads of the interpreter; torch's setting where None.

        Raises:
            InvalidBundle: The package cannot be read, or it has a quantizer that the graph has not.
            TargetRefusal: The interpreter lacks operations of the program.
        """
        program = read_artifact(folder)
        self._outputs = program.main.outputs
        cut, self._sources = _cut(program.main, shapes)
        self.quantizers = tuple(self._sources)
        self._interpreter = Interpreter(_with_main(program, cut))
        self._threads = threads

    def __call__(
        self, inputs: Mapping[str, NDArray[Any]], values: Mapping[str, NDArray[Any]]
    ) -> tuple[Values, Values]:
        """Runs every segment once."""
        given = {_GIVEN + name: values[name] for name in self.quantizers}
        with torch_threads(self._threads):
            results = self._interpreter.run({**inputs, **given})
        own = {name: results[source].astype(np.float32) for name, source in self._sources.items()}
        return {name: results[name] for name in self._outputs}, own


def _cut(
    function: MilFunction, shapes: Mapping[str, tuple[int | None, ...]]
) -> tuple[MilFunction, dict[str, str]]:
    """The function whose quantizers are inputs' and whose sources are results; sources by quantizer."""
    sources = dict(_quantizers(function))
    given = tuple(
        MilValue(_GIVEN + name, TensorType(_FLOAT32, shape_of(name, shapes))) for name in sources
    )
    operations = tuple(
        _fed(operation) if _name(operation) in sources else operation
        for operation in function.operations
    )
    outputs = tuple(dict.fromkeys([*function.outputs, *sources.values()]))
    return (
        replace(
            function,
            inputs=(*function.inputs, *given),
            operations=operations,
            outputs=outputs,
        ),
        sources,
    )


def _quantizers(function: MilFunction) -> Iterator[tuple[str, str]]:
    """Names of quantizers with the values that they quantize; inputs of the function are not computed.

    Raises:
        UnknownQuantizer: One has no name that a graph gives.
    """
    inputs = {value.name for value in function.inputs}
    for operation in function.operations:
        if operation.kind != "quantize":
            continue
        name, source = _name(operation), operation.inputs["input"][0]
        if name is None:
            raise UnknownQuantizer(operation.name)
        if isinstance(source, str) and source not in inputs:
            yield name, source


def _fed(operation: MilOperation) -> MilOperation:
    return replace(
        operation, inputs={**operation.inputs, "input": (f"{_GIVEN}{_name(operation)}",)}
    )


def _name(operation: MilOperation) -> str | None:
    found = _QUANTIZER.fullmatch(operation.name) if operation.kind == "quantize" else None
    return None if found is None else found[1]


def _with_main(program: MilProgram, function: MilFunction) -> MilProgram:
    return replace(program, functions={**program.functions, program.default: function})
