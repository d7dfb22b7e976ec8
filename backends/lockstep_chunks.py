"""Which part of an artifact that is cut open at its quantizers is opened at a time, so that few bytes are held.

An artifact's operations become chunks, each a model of its own. What crosses from one to the next are float values such
as the residual stream. A quantizer and the operations that read it stay together, because a kernel of 8-bit numbers needs
both: where they are in several chunks, each has the quantizer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from numpy.typing import NDArray

from qdx.exporter.errors import InternalError
from qdx.exporter.limits import MIB

__all__ = ["CHUNK_LIMIT_BYTES", "Chunk", "Flow", "Operation", "plan_chunks"]

CHUNK_LIMIT_BYTES: Final = 256 * MIB
"""Of a chunk's weights and the values that enter and leave it. A chunk of one quantizer may take more."""

_FULL: Final = 0.5
"""A chunk ends where little crosses, once it holds this share of what it may."""


@dataclass(frozen=True)
class Operation:
    """One operation of an artifact, as far as it matters where the artifact is cut.

    Attributes:
        inputs: Values that it reads; what is neither computed nor an input of the artifact is stored in it.
        outputs: Values that it computes.
        joined: Whether its readers need it in their own chunk: a quantizer.
        moves: Whether it only moves the elements of its first input, which is then joined to its readers as well.
        stored_bytes: Of the weights that it reads.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    joined: bool = False
    moves: bool = False
    stored_bytes: int = 0


@dataclass(frozen=True)
class Flow:
    """An artifact that is cut open at its quantizers.

    Attributes:
        operations: In an order in which they can run.
        inputs: Of the artifact.
        outputs: The value that each output of the artifact is.
        given: The value from outside that each quantizer reads.
        sources: The value that the artifact would have given the quantizer itself; the same quantizers, in the
            order in which the quantized graph runs them.
        factors: By which a source is multiplied inside the quantizer before it rounds, where the runtime has joined
            the two; of a shape that fits the source.
    """

    operations: tuple[Operation, ...] = field(repr=False)
    inputs: tuple[str, ...]
    outputs: Mapping[str, str]
    given: Mapping[str, str] = field(repr=False)
    sources: Mapping[str, str] = field(repr=False)
    factors: Mapping[str, NDArray[Any]] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Chunk:
    """A part of an artifact that runs at once.

    Attributes:
        operations: Indices into `Flow.operations`, ascending.
        inputs: Inputs of the artifact that it reads.
        outputs: Outputs of the artifact that it computes.
        given: Quantizers that it feeds from outside.
        found: Quantizers whose inputs it computes.
        enters: Values of earlier chunks that it reads.
        leaves: Values that it computes and later chunks read.
    """

    operations: tuple[int, ...] = field(repr=False)
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    given: tuple[str, ...]
    found: tuple[str, ...]
    enters: tuple[str, ...]
    leaves: tuple[str, ...]

    def taken(self, flow: Flow) -> tuple[str, ...]:
        """The values that it takes: inputs, those from outside, those of earlier chunks."""
        return (*self.inputs, *(flow.given[name] for name in self.given), *self.enters)

    def made(self, flow: Flow) -> tuple[str, ...]:
        """The values that it makes for others, each once."""
        outputs = (flow.outputs[name] for name in self.outputs)
        sources = (flow.sources[name] for name in self.found)
        return tuple(dict.fromkeys((*outputs, *sources, *self.leaves)))


@dataclass
class _Stage:
    """What computes the input of one quantizer, or an output, beyond what the stages before have computed."""

    size_bytes: int
    found: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    operations: set[int] = field(default_factory=set)
    enters: set[str] = field(default_factory=set)
    given: set[str] = field(default_factory=set)
    inputs: set[str] = field(default_factory=set)


def plan_chunks(
    flow: Flow, sizes_bytes: Mapping[str, int], limit_bytes: int = CHUNK_LIMIT_BYTES
) -> tuple[Chunk, ...]:
    """Divides an artifact into chunks, in the order in which the quantized graph runs its quantizers.

    Args:
        flow: The artifact.
        sizes_bytes: Of the input of each quantizer in float32. What crosses between chunks counts as much as the
            input that it was computed for.
        limit_bytes: What a chunk may take, see `CHUNK_LIMIT_BYTES`.

    Returns:
        Chunks in the order in which they run; each operation that anything depends on is in one, a quantizer
        in every one that reads it.
    """
    plan = _Plan(flow, sizes_bytes)
    chunks = []
    start = 0
    while start < len(plan.stages):
        end = plan.end_of(start, limit_bytes)
        chunks.append(plan.chunk(start, end))
        start = end
    return tuple(chunks)


class _Plan:
    """The stages of a flow, and what a run of them costs.

    Attributes:
        stages: In order of execution.
    """

    def __init__(self, flow: Flow, sizes_bytes: Mapping[str, int]) -> None:
        self._flow = flow
        self._sizes_bytes = sizes_bytes
        self._makers = {
            name: index for index, one in enumerate(flow.operations) for name in one.outputs
        }
        self._quantizers = {value: name for name, value in flow.given.items()}
        self._anywhere = _anywhere(flow)
        self._homes: dict[str, int] = {}
        self.stages: list[_Stage] = []
        for name, source in flow.sources.items():
            self._add(source, sizes_bytes[name]).found.append(name)
        for name, value in flow.outputs.items():
            self._add(value, 0).outputs.append(name)
        self._last_uses = {
            name: index for index, stage in enumerate(self.stages) for name in stage.enters
        }
        self._last_given = {
            name: index for index, stage in enumerate(self.stages) for name in stage.given
        }

    def end_of(self, start: int, limit_bytes: int) -> int:
        """The stage after the last of the chunk that begins with a stage."""
        fitting = [start + 1]
        costs = [self._cost_bytes(start, start + 1)]
        for end in range(start + 2, len(self.stages) + 1):
            cost = self._cost_bytes(start, end)
            if cost > limit_bytes:
                break
            fitting.append(end)
            costs.append(cost)
        if fitting[-1] == len(self.stages):
            return fitting[-1]
        full = [
            end for end, cost in zip(fitting, costs, strict=True) if cost >= _FULL * limit_bytes
        ]
        return min(full or fitting[-1:], key=lambda end: (self._crossing_bytes(end), -end))

    def chunk(self, start: int, end: int) -> Chunk:
        """The chunk of some stages."""
        stages = self.stages[start:end]
        given = set().union(*(stage.given for stage in stages))
        inputs = set().union(*(stage.inputs for stage in stages))
        return Chunk(
            operations=tuple(sorted(set().union(*(stage.operations for stage in stages)))),
            inputs=tuple(name for name in self._flow.inputs if name in inputs),
            outputs=tuple(name for stage in stages for name in stage.outputs),
            given=tuple(name for name in self._flow.sources if name in given),
            found=tuple(name for stage in stages for name in stage.found),
            enters=tuple(sorted(self._entering(start, end))),
            leaves=tuple(sorted(self._leaving(start, end))),
        )

    def _add(self, target: str, size_bytes: int) -> _Stage:
        """The stage that computes a value: a new one, unless an earlier one has."""
        if target in self._homes:
            return self.stages[self._homes[target]]
        stage = _Stage(size_bytes)
        pending = [target]
        while pending:
            name = pending.pop()
            if name in self._homes:
                stage.enters.add(name)
            elif name in self._quantizers:
                stage.given.add(self._quantizers[name])
            elif name in self._flow.inputs:
                stage.inputs.add(name)
            elif name in self._makers and self._makers[name] not in stage.operations:
                stage.operations.add(self._makers[name])
                pending += self._flow.operations[self._makers[name]].inputs
        for index in stage.operations - self._anywhere:
            self._homes |= dict.fromkeys(self._flow.operations[index].outputs, len(self.stages))
        self.stages.append(stage)
        return stage

    def _entering(self, start: int, end: int) -> set[str]:
        read = set().union(*(stage.enters for stage in self.stages[start:end]))
        return {name for name in read if self._homes[name] < start}

    def _leaving(self, start: int, end: int) -> set[str]:
        return {
            name for name, last in self._last_uses.items()
            if start <= self._homes[name] < end <= last
        }  # fmt: skip

    def _cost_bytes(self, start: int, end: int) -> int:
        """Weights, values given, and values computed beside those that they are compared with."""
        stages = self.stages[start:end]
        operations = set().union(*(stage.operations for stage in stages))
        given = set().union(*(stage.given for stage in stages))
        found = {name for stage in stages for name in stage.found}
        crossing = self._entering(start, end) | self._leaving(start, end)
        return (
            sum(self._flow.operations[index].stored_bytes for index in operations)
            + sum(self._sizes_bytes[name] for name in given | found)
            + sum(stage.size_bytes for stage in stages)
            + sum(map(self._value_bytes, crossing))
        )

    def _crossing_bytes(self, end: int) -> int:
        """What is held between the stage before and this one."""
        values = (name for name, last in self._last_uses.items() if self._homes[name] < end <= last)
        order = list(self._flow.sources)
        passed = {name for stage in self.stages[:end] for name in stage.found}
        given = (name for name in order if name in passed and self._last_given.get(name, -1) >= end)
        return sum(map(self._value_bytes, values)) + sum(self._sizes_bytes[name] for name in given)

    def _value_bytes(self, name: str) -> int:
        return self.stages[self._homes[name]].size_bytes


def _anywhere(flow: Flow) -> frozenset[int]:
    """Operations that are in every chunk that reads them: of stored values alone, and quantizers."""
    makers: dict[str, int] = {}
    outside = {*flow.inputs, *flow.given.values()}
    stored: set[int] = set()
    joined: set[int] = set()
    for index, operation in enumerate(flow.operations):
        read = [name for name in operation.inputs if name in makers or name in outside]
        if all(name in makers and makers[name] in stored for name in read):
            stored.add(index)
        elif operation.joined or (operation.moves and makers.get(operation.inputs[0]) in joined):
            joined.add(index)
        for name in operation.outputs:
            if name in makers or name in outside:
                raise InternalError(f"`{name}`: an artifact computes it a second time")
            makers[name] = index
    return frozenset(stored | joined)
