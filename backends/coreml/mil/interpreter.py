"""Computes a program in PyTorch, operation by operation.

It shows what a package says: its graph, weights, codes, tables and types. Arithmetic is in float32 and
each result is rounded once, to the type that the program declares for it; Apple's kernels may round
more often, or less.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from qdx.backends.contract import check_inputs
from qdx.backends.coreml.mil.lazy import Budget
from qdx.backends.coreml.mil.prepare import Source, Step, prepare
from qdx.backends.coreml.mil.program import MilFunction, MilProgram
from qdx.backends.coreml.mil.settle import compute, settled
from qdx.exporter.errors import InvalidBundle, UsageError, quoted
from qdx.exporter.graph.ir.graph import TensorSpec

__all__ = ["KEPT_BYTES", "Interpreter", "Observer"]

# Given each computed value's name and the value, not to be altered. A tensor that it returns stands in
# the value's place from there on.
Observer = Callable[[str, torch.Tensor], torch.Tensor | None]

KEPT_BYTES: Final = 256 * 1024 * 1024


class Interpreter:
    """One function of a program, prepared once for many calls.

    Args:
        program: A read package.
        function: Its name; the default function where None.
        kept_bytes: Memory that constants may take between calls. Those beyond it are read and
            decompressed anew at each use.

    Attributes:
        inputs: In the function's order.

    Raises:
        InvalidBundle: The program is not well formed.
        TargetRefusal: The interpreter lacks operations.
    """

    def __init__(
        self, program: MilProgram, function: str | None = None, *, kept_bytes: int = KEPT_BYTES
    ) -> None:
        name = program.default if function is None else function
        if name not in program.functions:
            raise UsageError(
                f"{quoted(program.path)}: has no function {quoted(name)}",
                hint=f"expected one of {', '.join(program.functions)}",
            )
        self._function = program.functions[name]
        self._plan = prepare(self._function, Budget(kept_bytes))
        self.inputs = _specs(self._function)

    def run(
        self, inputs: Mapping[str, NDArray[Any]], observe: Observer | None = None
    ) -> dict[str, NDArray[Any]]:
        """Runs once; the returned arrays belong to the caller.

        Args:
            inputs: By name, in the declared types and shapes.
            observe: Sees, and may replace, every computed value; constants are not shown.

        Raises:
            InvalidBundle: An operation does not compute what it declares.
            UsageError: A name, dtype or shape is not the function's.
        """
        check_inputs(self.inputs, inputs)
        values = {name: torch.from_numpy(np.array(array)) for name, array in inputs.items()}
        with torch.no_grad():
            for step in self._plan.steps:
                _run(step, values, observe)
        constants = self._plan.constants
        return {
            name: _array(values[name] if name in values else constants[name](), name)
            for name in self._plan.outputs
        }


def _run(step: Step, values: dict[str, torch.Tensor], observe: Observer | None) -> None:
    def fetch(source: Source) -> Any:
        return values[source] if isinstance(source, str) else source()

    operation = step.operation
    arguments = {
        name: [fetch(item) for item in source] if isinstance(source, list) else fetch(source)
        for name, source in step.arguments
    }
    results = settled(operation, compute(operation, step.kernel, arguments))
    for output, result in zip(operation.outputs, results, strict=True):
        values[output.name] = result if observe is None else _seen(output.name, result, observe)
    for name in step.frees:
        values.pop(name, None)


def _array(value: Any, name: str) -> NDArray[Any]:
    if not isinstance(value, torch.Tensor):
        raise InvalidBundle(f"output {quoted(name)} is a text, expected a tensor")
    return np.array(value.numpy())


def _seen(name: str, value: torch.Tensor, observe: Observer) -> torch.Tensor:
    other = observe(name, value)
    if other is None:
        return value
    if other.shape != value.shape:
        raise UsageError(
            f"{quoted(name)}: replaced by shape {list(other.shape)}, expected {list(value.shape)}"
        )
    return other.to(value.dtype)


def _specs(function: MilFunction) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(
            value.name,
            value.type.kind.name,
            tuple(
                f"{value.name}_{axis}" if size is None else size
                for axis, size in enumerate(value.type.shape or ())
            ),
        )
        for value in function.inputs
    )
