"""Runs of a quantized graph and of its artifact in lockstep, which stops them at every chunk of the artifact.

See `qdx.backends.lockstep` for why whole runs cannot be compared to better than the quantization noise.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

from qdx.backends.lockstep_chunks import CHUNK_LIMIT_BYTES
from qdx.exporter.errors import InternalError
from qdx.exporter.measure.metrics import measure, metrics_of
from qdx.exporter.progress import tell_nobody
from qdx.verification.measure.computed import ComputedGraph

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qdx.backends.lockstep import Lockstep, LockstepRun
    from qdx.backends.lockstep_chunks import Chunk
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.verification.measure.computed import Computed

__all__ = [
    "LockstepInputs",
    "LockstepResult",
    "compare_computed",
    "compare_in_lockstep",
    "compare_together",
]


@dataclass(frozen=True)
class LockstepResult:
    """One call in lockstep.

    Attributes:
        values: Of what the artifact would have given each quantizer and of its outputs, against the graph: of every
            metric, by the module that the quantizer serves.
        outputs: What the graph answered; none where it was not run.
    """

    values: Mapping[str, Mapping[str, float]]
    outputs: Mapping[str, torch.Tensor] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def at(
        cls,
        places: Mapping[str, Mapping[str, float]],
        outputs: Mapping[str, torch.Tensor] = MappingProxyType({}),
    ) -> LockstepResult:
        """From the values of the metrics at each place; NaN for those that are not there."""
        names = [metric.name for metric in metrics_of("lowering")]
        values = {
            name: {place: found.get(name, math.nan) for place, found in places.items()}
            for name in names
        }
        return cls(values, outputs)

    @property
    def sqnr_db(self) -> Mapping[str, float]:
        """The SQNR at every place."""
        return self.values["sqnr_db"]

    @property
    def worst(self) -> tuple[str, float]:
        """The place of the least SQNR, and the value; NaN comes first."""
        return min(self.sqnr_db.items(), key=lambda pair: (pair[1] == pair[1], pair[1]))


@dataclass(frozen=True)
class LockstepInputs:
    """What one call is given.

    Attributes:
        graph: Inputs of the quantized graph.
        artifact: The same by the artifact's names.
    """

    graph: Mapping[str, torch.Tensor] = field(repr=False)
    artifact: Mapping[str, NDArray[Any]] = field(repr=False)


def compare_in_lockstep(
    graph: Graph,
    inputs: Mapping[str, torch.Tensor],
    artifact: Lockstep,
    arrays: Mapping[str, NDArray[Any]],
    output_names: Mapping[str, str],
    *,
    limit_bytes: int = CHUNK_LIMIT_BYTES,
) -> LockstepResult:
    """Compares one call; see `compare_together`.

    Args:
        graph: The quantized graph.
        inputs: Of the graph.
        artifact: The same, lowered.
        arrays: The same inputs by the artifact's names.
        output_names: The artifact's name of each of the graph's outputs that it has.
        limit_bytes: What a chunk of the artifact may take, see `qdx.backends.lockstep_chunks`.

    Raises:
        InvalidBundle: The runtime cannot open a chunk.
    """
    given = LockstepInputs(inputs, arrays)
    (result,) = compare_together(graph, [given], artifact, output_names, limit_bytes=limit_bytes)
    return result


def compare_together(
    graph: Graph,
    calls: Sequence[LockstepInputs],
    artifact: Lockstep,
    output_names: Mapping[str, str],
    *,
    limit_bytes: int = CHUNK_LIMIT_BYTES,
    compared: Callable[[int], None] = tell_nobody,
) -> tuple[LockstepResult, ...]:
    """Runs the quantized graph, and the artifact on the graph's own values at every quantizer, for calls side by side.

    All calls reach a chunk of the artifact at the same node of the graph, so that it is opened once for all of them.

    Args:
        graph: The quantized graph.
        calls: What each call is given.
        artifact: The graph, lowered.
        output_names: The artifact's name of each of the graph's outputs that it has.
        limit_bytes: What a chunk of the artifact may take, see `qdx.backends.lockstep_chunks`.
        compared: Told how many more quantizers were compared, of all calls together.

    Raises:
        InvalidBundle: The runtime cannot open a chunk.
    """
    computed = ComputedGraph(graph)
    return compare_computed(
        computed, calls, artifact, output_names, limit_bytes=limit_bytes, compared=compared
    )


def compare_computed(
    computed: Computed,
    calls: Sequence[LockstepInputs],
    artifact: Lockstep,
    output_names: Mapping[str, str],
    *,
    limit_bytes: int = CHUNK_LIMIT_BYTES,
    compared: Callable[[int], None] = tell_nobody,
) -> tuple[LockstepResult, ...]:
    """Holds the artifact against what a quantized graph computes, or has computed; see `compare_together`.

    Args:
        computed: The values of the graph.
        calls: What each call is given.
        artifact: The graph, lowered.
        output_names: The artifact's name of each of the graph's outputs that it has.
        limit_bytes: What a chunk of the artifact may take, see `qdx.backends.lockstep_chunks`.
        compared: Told how many more quantizers were compared, of all calls together.

    Raises:
        InvalidBundle: The runtime cannot open a chunk.
    """
    names = [name for name in computed.sources if name in artifact.quantizers]
    streams = []
    for position, call in enumerate(calls):
        sizes_bytes = computed.sizes_bytes(position, call.graph, names)
        started = artifact.start(call.artifact, sizes_bytes, limit_bytes=limit_bytes)
        streams.append(_Stream(computed, names, started))
    outputs = computed.run(
        [call.graph for call in calls],
        [stream.observers for stream in streams],
        partial(_advance, streams, compared),
    )
    return tuple(
        stream.result(own, output_names) for stream, own in zip(streams, outputs, strict=True)
    )


def _advance(streams: Sequence[_Stream], compared: Callable[[int], None]) -> None:
    """Runs the chunks for which everything is there, each for all streams before the next one."""
    while (chunk := next(filter(None, (stream.ready for stream in streams)), None)) is not None:
        for stream in streams:
            if stream.ready == chunk:
                stream.advance()
                compared(len(chunk.found))


class _Stream:
    """Feeds the artifact's chunks while the graph runs, and compares what each has computed.

    A value of the graph is held from when it is computed until the last chunk that reads it has run.

    Args:
        computed: The graph's values; every one is copied where the graph changes values in place.
        names: Quantizers.
        artifact: The run of the artifact.

    Attributes:
        observers: What is called with the values that are needed.
    """

    def __init__(self, computed: Computed, names: Sequence[str], artifact: LockstepRun) -> None:
        self._copies = computed.copies
        self._artifact = artifact
        self._sources = {name: computed.sources[name] for name in names}
        self._places = {name: f"{computed.places[name]}:{name}" for name in names}
        self._values: dict[str, torch.Tensor] = {}
        self._left = Counter(
            self._sources[name] for chunk in artifact.chunks for name in _needed(chunk)
        )
        self._metrics = metrics_of("lowering")
        self._measured: dict[str, dict[str, float]] = {}
        self.observers = {source: partial(self._see, source) for source in self._left}
        self._outputs: dict[str, NDArray[Any]] = {}

    def result(
        self, outputs: Mapping[str, torch.Tensor], output_names: Mapping[str, str]
    ) -> LockstepResult:
        """What was found, when the graph has run.

        Args:
            outputs: Of the graph.
            output_names: The artifact's names of them.

        Raises:
            InternalError: The graph has not computed what a chunk needs.
        """
        if self._artifact.pending is not None:
            missing = [
                name for name in _needed(self._artifact.pending)
                if self._sources[name] not in self._values
            ]  # fmt: skip
            raise InternalError(f"the graph computed no input of `{'`, `'.join(missing)}`")
        found = {place: self._measured[name] for name, place in self._places.items()}
        for name, own_name in output_names.items():
            own = torch.from_numpy(self._outputs[own_name])
            found[name] = measure(self._metrics, outputs[name], own)
        return LockstepResult.at(found, outputs)

    def _see(self, source: str, value: torch.Tensor) -> None:
        own = value.is_contiguous() and value.untyped_storage().nbytes() == value.nbytes
        if self._copies or not own:  # part of a larger tensor would keep all of it
            value = value.clone(memory_format=torch.contiguous_format)
        self._values[source] = value

    @property
    def ready(self) -> Chunk | None:
        """The chunk that runs next, where everything is there for it."""
        chunk = self._artifact.pending
        if chunk is None or any(self._sources[n] not in self._values for n in _needed(chunk)):
            return None
        return chunk

    def advance(self) -> None:
        """Runs the next chunk."""
        chunk = self._artifact.pending
        assert chunk is not None, "the artifact has run"
        given = {name: self._values[self._sources[name]].numpy() for name in chunk.given}
        found = self._artifact.advance(given)
        self._outputs |= found.outputs
        for name, value in found.own.items():
            expected = self._values[self._sources[name]]
            result = torch.from_numpy(value).reshape(expected.shape)
            self._measured[name] = measure(self._metrics, expected, result)
        needed = [self._sources[name] for name in _needed(chunk)]
        self._left.subtract(needed)
        for source in set(needed):
            if not self._left[source]:
                del self._values[source]


def _needed(chunk: Chunk) -> tuple[str, ...]:
    """Quantizers whose inputs in the graph a chunk is given, or is compared with."""
    return tuple(dict.fromkeys((*chunk.given, *chunk.found)))
