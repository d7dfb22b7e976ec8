"""A function as a list of steps: names resolved, constants apart, ends of lives known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from qdx.backends.coreml.mil.lazy import Budget, Lazy, stored, tensor_bytes
from qdx.backends.coreml.mil.program import MilFunction, MilOperation, MilValue
from qdx.backends.coreml.mil.registry import Kernel, kernels
from qdx.backends.coreml.mil.settle import compute, settled
from qdx.exporter.errors import InvalidBundle, Refusal, TargetRefusal, quoted
from qdx.exporter.limits import MIL_NESTED_LIMIT

__all__ = ["Plan", "Source", "Step", "prepare"]

# Where an argument comes from: a value computed before, by name, or a constant.
Source = str | Lazy


@dataclass(frozen=True)
class Step:
    """One operation to compute.

    Attributes:
        operation: Itself.
        kernel: What computes it.
        arguments: By parameter; a list where the parameter takes several.
        frees: Values that nothing reads after it.
    """

    operation: MilOperation
    kernel: Kernel
    arguments: tuple[tuple[str, Source | list[Source]], ...]
    frees: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """A prepared function.

    Attributes:
        steps: In order of execution.
        constants: By name, those that were computed from others among them.
        outputs: Names of the results.
    """

    steps: tuple[Step, ...]
    constants: Mapping[str, Lazy] = field(repr=False)
    outputs: tuple[str, ...]


def prepare(function: MilFunction, budget: Budget) -> Plan:
    """Prepares a function once for many calls.

    Args:
        function: Of a read package.
        budget: Of the memory that constants may take between calls.

    Raises:
        InvalidBundle: A value is read before it is computed, computed twice, or lacks an argument.
        TargetRefusal: The interpreter lacks operations; all of them are named.
    """
    _refuse_unknown(function)
    constants: dict[str, Lazy] = {}
    values = {value.name for value in function.inputs}
    steps: list[Step] = []
    for operation in function.operations:
        for output in operation.outputs:
            if output.name in values or output.name in constants:
                raise InvalidBundle(f"{operation}: computes {quoted(output.name)} a second time")
        if operation.kind == "const":
            constants |= _constant(operation, budget)
            continue
        kernel = kernels()[operation.kind]
        arguments = tuple(_arguments(operation, kernel, values, constants, budget))
        if operation.kind.startswith("constexpr_"):
            constants |= _computed(operation, kernel, arguments, budget)
            continue
        values |= {output.name for output in operation.outputs}
        steps.append(Step(operation, kernel, arguments, ()))
    for name in function.outputs:
        if name not in values and name not in constants:
            raise InvalidBundle(
                f"function {quoted(function.name)}: {quoted(name)} is never computed"
            )
    return Plan(tuple(_with_frees(steps, function.outputs)), constants, function.outputs)


def _refuse_unknown(function: MilFunction) -> None:
    refusals: list[Refusal] = []
    for operation in function.operations:
        kernel = kernels().get(operation.kind)
        if kernel is None and operation.kind != "const":
            reason = f"the interpreter has no operation {quoted(operation.kind)}"
            refusals.append(Refusal(operation.name, reason))
        elif kernel is not None:
            refusals += [
                Refusal(operation.name, f"the interpreter's {operation.kind} has no {quoted(name)}")
                for name in operation.inputs
                if name not in kernel.known
            ]
    if refusals:
        kinds = sorted({refusal.reason for refusal in refusals})
        raise TargetRefusal(
            f"function {quoted(function.name)} cannot be computed here: {'; '.join(kinds)}",
            refusals=tuple(refusals),
            hint="the package may be right nevertheless; run it on macOS",
        )


def _constant(operation: MilOperation, budget: Budget) -> dict[str, Lazy]:
    given = operation.inputs.get("val", ())
    values = [value for value in given if not isinstance(value, str)]
    if len(given) != 1 or len(values) != 1 or len(operation.outputs) != 1:
        raise InvalidBundle(f"{operation}: has no value, expected a constant")
    (value,), (output,) = values, operation.outputs
    if value.type != output.type:
        raise InvalidBundle(f"{operation}: is {value.type}, declared as {output.type}")
    return {output.name: stored(value, budget)}


def _arguments(
    operation: MilOperation,
    kernel: Kernel,
    values: set[str],
    constants: Mapping[str, Lazy],
    budget: Budget,
) -> Iterator[tuple[str, Source | list[Source]]]:
    missing = sorted(kernel.required - set(operation.inputs))
    if missing:
        raise InvalidBundle(f"{operation}: has no argument {quoted(missing[0])}")
    for name, operands in operation.inputs.items():
        sources: list[Source] = []
        for operand in operands:
            if not isinstance(operand, str):
                sources.append(stored(operand, budget))
            elif operand in constants:
                sources.append(constants[operand])
            elif operand in values:
                sources.append(operand)
            else:
                raise InvalidBundle(f"{operation}: reads {quoted(operand)}, which is not there")
        if name in kernel.several:
            yield name, sources
        elif len(sources) == 1:
            yield name, sources[0]
        else:
            raise InvalidBundle(
                f"{operation}: {quoted(name)} has {len(sources)} values, expected 1"
            )


def _computed(
    operation: MilOperation,
    kernel: Kernel,
    arguments: tuple[tuple[str, Source | list[Source]], ...],
    budget: Budget,
) -> dict[str, Lazy]:
    """What a compile-time operation gives: computed when its reader runs, from constants that are not kept."""
    depth = 1
    for name, source in arguments:
        if not isinstance(source, Lazy):
            raise InvalidBundle(f"{operation}: {quoted(name)} is not a constant")
        depth = max(depth, source.depth + 1)
    if depth > MIL_NESTED_LIMIT:
        raise InvalidBundle(f"{operation}: is nested {depth} deep, expected {MIL_NESTED_LIMIT}")

    def results() -> tuple[torch.Tensor, ...]:
        made: dict[str, Any] = {
            name: source.make() for name, source in arguments if isinstance(source, Lazy)
        }
        return settled(operation, compute(operation, kernel, made))

    def result(index: int) -> Lazy:
        size_bytes = tensor_bytes(operation.outputs[index].type)
        return Lazy(lambda: results()[index], size_bytes, budget, depth=depth)

    return {output.name: result(index) for index, output in enumerate(operation.outputs)}


def _with_frees(steps: list[Step], outputs: tuple[str, ...]) -> Iterator[Step]:
    """Steps, each with the values that die after it; those that nothing reads die at once."""
    left = Counter(name for step in steps for name in step.operation.references)
    left.update(outputs)
    for step in steps:
        read = list(step.operation.references)
        left.subtract(read)
        made: list[MilValue] = list(step.operation.outputs)
        dead = {name for name in (*read, *(value.name for value in made)) if left[name] == 0}
        yield Step(step.operation, step.kernel, step.arguments, tuple(sorted(dead)))
