"""A quantized graph as a stored reference has it: what it answered, and what its quantizers were given, without its weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from qdx.cache.keys import key_of
from qdx.exporter.errors import InvalidInput, quoted
from qdx.runtime.tensor_folder import StoredTensors
from qdx.verification.measure.computed import Observe, Tensors

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydantic import JsonValue

    from qdx.exporter.formats.memory import Memory
    from qdx.exporter.graph.ir.spec import TensorSpec
    from qdx.exporter.plan.resolve.resolution import ResolvedPlan
    from qdx.runtime.tensor_folder import TensorFolder
    from qdx.verification.measure.computed import Computed

__all__ = ["AnswersKept", "LockstepKept", "StoredGraph", "StoredModel", "StoredValues"]


@dataclass(frozen=True)
class Values:
    """What one call gave the quantizers, and what the graph answered.

    Attributes:
        given: Tensors by the name of the value, in the order in which they were computed.
        outputs: By the graph's names.
    """

    given: StoredTensors = field(repr=False)
    outputs: StoredTensors = field(repr=False)


@dataclass(frozen=True)
class StoredGraph:
    """One quantized graph.

    Attributes:
        where: `component.method`.
        macs: Multiply-accumulates of one call.
        identity: What decides its answers, see `graph_identity`.
        inputs: Of the graph.
        sources: By quantizer, the name of the value that it is given.
        places: By quantizer, the module that it serves.
        shapes: By quantizer, of that value; None for open sizes.
        calls: By the position of the call, what was stored for lockstep.
        why_not: Why calls are missing there; empty where none is.
    """

    where: str
    macs: int
    identity: str
    inputs: tuple[TensorSpec, ...]
    sources: Mapping[str, str] = field(repr=False)
    places: Mapping[str, str] = field(repr=False)
    shapes: Mapping[str, tuple[int | None, ...]] = field(repr=False)
    calls: Mapping[int, Values] = field(repr=False)
    why_not: str = ""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """None that anybody asks for: it does not compute."""
        return ()

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Refuses: it has answers, and computes none.

        Raises:
            InvalidInput: Always.
        """
        del inputs
        raise InvalidInput(
            f"{quoted(self.where)}: the stored reference has no answer of the quantized graph to this call",
            hint="store the reference again, with the calls that are compared here",
        )


@dataclass(frozen=True)
class StoredModel:
    """A bundle's quantized graphs as a stored reference has them; see `QuantizedModel`.

    Attributes:
        resolved: What the plan became of every site.
        quantized: By `component.method`.
    """

    resolved: ResolvedPlan
    quantized: Mapping[str, StoredGraph] = field(repr=False)

    @property
    def macs(self) -> dict[str, int]:
        """Multiply-accumulates of one call of each graph."""
        return {where: graph.macs for where, graph in self.quantized.items()}

    @property
    def notes(self) -> list[str]:
        """Where not all calls that lockstep compares were stored, and why."""
        return [
            f"{where}: {len(graph.calls)} calls are compared quantizer by quantizer: {graph.why_not}"
            for where, graph in self.quantized.items()
            if graph.why_not
        ]


class StoredValues:
    """The values of a stored graph in some calls; see `Computed`.

    Args:
        graph: The graph.
        positions: Of the calls.
    """

    def __init__(self, graph: StoredGraph, positions: Sequence[int]) -> None:
        self._calls = [graph.calls[position] for position in positions]
        self._where = graph.where
        self._shapes = graph.shapes
        self.copies = False
        self.sources = graph.sources
        self.places = graph.places

    def sizes_bytes(self, position: int, inputs: Tensors, names: Sequence[str]) -> dict[str, int]:  # noqa: ARG002
        """See `Computed`; of open sizes, what the stored value has."""
        return {name: self._size(position, name) * torch.float32.itemsize for name in names}

    def _size(self, position: int, name: str) -> int:
        known = [size for size in self._shapes[name] if size is not None]
        if len(known) == len(self._shapes[name]):
            return math.prod(known)
        given, source = self._calls[position].given, self.sources[name]
        if source not in given:
            raise self._missing(source)
        return given[source].numel()

    def run(
        self,
        calls: Sequence[Tensors],
        observers: Sequence[Mapping[str, Observe]],
        between: Callable[[], None],
    ) -> Sequence[Tensors]:
        """See `Computed`; nothing is computed."""
        del calls
        for own, observed in zip(self._calls, observers, strict=True):
            lost = [source for source in observed if source not in own.given]
            if lost:
                raise self._missing(lost[0])
        for source in self._calls[0].given if self._calls else ():
            for own, observed in zip(self._calls, observers, strict=True):
                if source in observed:
                    observed[source](own.given[source])
            between()
        between()
        return [dict(own.outputs) for own in self._calls]

    def _missing(self, source: str) -> InvalidInput:
        return InvalidInput(
            f"{quoted(self._where)}: the stored reference has no {quoted(source)}, at which the artifact is cut",
            hint="store the reference again, from a bundle that is lowered likewise",
        )


class AnswersKept:
    """A memory that also keeps what is recalled or kept in a folder of a reference; see `Memory`.

    Args:
        folder: Of tensors.
        memory: The memory that lasts; None for none.

    Attributes:
        kept: Answers by key.
    """

    def __init__(self, folder: TensorFolder, memory: Memory | None = None) -> None:
        self._folder = folder
        self._memory = memory
        self.kept: dict[str, StoredTensors] = {}

    def recall(self, parts: Mapping[str, JsonValue]) -> Tensors | None:
        """See `Memory`."""
        found = None if self._memory is None else self._memory.recall(parts)
        if found is not None:
            self.kept[key_of(parts)] = self._folder.store(found)
        return found

    def keep(self, parts: Mapping[str, JsonValue], tensors: Tensors) -> None:
        """See `Memory`."""
        self.kept[key_of(parts)] = self._folder.store(tensors)
        if self._memory is not None:
            self._memory.keep(parts, tensors)


class LockstepKept:
    """Keeps what quantizers are given in lockstep, call by call, as long as there is room.

    Args:
        folder: Of tensors.
        limit_bytes: Of all calls together.

    Attributes:
        calls: By `component.method`, and by the position of the call.
        left_out: By `component.method`, the sizes in bytes of calls that had no room.
    """

    def __init__(self, folder: TensorFolder, limit_bytes: int) -> None:
        self._folder = folder
        self._left_bytes = limit_bytes
        self.limit_bytes = limit_bytes
        self.calls: dict[str, dict[int, Values]] = {}
        self.left_out: dict[str, list[int]] = {}

    def watching(self, where: str, computed: Computed, positions: Sequence[int]) -> Computed:
        """The same values, of which those that others are shown are kept.

        Args:
            where: `component.method`.
            computed: The values.
            positions: Of the calls.
        """
        return _Watched(self, where, computed, positions)

    def takes(self, where: str, size_bytes: int) -> bool:
        """Whether there is room for a call; its room is taken then."""
        if size_bytes > self._left_bytes:
            self.left_out.setdefault(where, []).append(size_bytes)
            return False
        self._left_bytes -= size_bytes
        return True

    def store(self, tensors: Tensors) -> StoredTensors:
        """Writes tensors."""
        return self._folder.store(tensors)


class _Watched:
    def __init__(
        self, kept: LockstepKept, where: str, computed: Computed, positions: Sequence[int]
    ) -> None:
        self._kept = kept
        self._where = where
        self._computed = computed
        self._positions = positions
        self.copies = computed.copies
        self.sources = computed.sources
        self.places = computed.places

    def sizes_bytes(self, position: int, inputs: Tensors, names: Sequence[str]) -> dict[str, int]:
        return self._computed.sizes_bytes(position, inputs, names)

    def run(
        self,
        calls: Sequence[Tensors],
        observers: Sequence[Mapping[str, Observe]],
        between: Callable[[], None],
    ) -> Sequence[Tensors]:
        digests: dict[int, dict[str, str]] = {}
        watched: list[Mapping[str, Observe]] = []
        for place, (inputs, observed) in enumerate(zip(calls, observers, strict=True)):
            if not self._kept.takes(self._where, self._size_bytes(place, inputs, observed)):
                watched.append(observed)
                continue
            own: dict[str, str] = {}
            digests[place] = own
            watched.append({
                source: partial(self._see, own, source, show) for source, show in observed.items()
            })  # fmt: skip
        outputs = self._computed.run(calls, watched, between)
        table = self._kept.calls.setdefault(self._where, {})
        for place, own in digests.items():
            given = StoredTensors(self._kept._folder, own)  # noqa: SLF001 - one file's own
            answered = self._kept.store(outputs[place])
            table[self._positions[place]] = Values(given, answered)
        return outputs

    def _size_bytes(self, place: int, inputs: Tensors, observed: Mapping[str, Observe]) -> int:
        names = {source: name for name, source in self.sources.items() if source in observed}
        return sum(self._computed.sizes_bytes(place, inputs, list(names.values())).values())

    def _see(self, own: dict[str, str], source: str, show: Observe, value: torch.Tensor) -> None:
        own[source] = self._kept.store({source: value.contiguous()}).digests[source]
        show(value)
