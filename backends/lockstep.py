"""An artifact cut open at its quantizers, so that each is fed values from outside.

Two correct computations of a quantized model differ in the last bit of some float, so that now and then
a value next to a rounding tie gets the other integer; every such difference makes more of them in what
follows, until the rounding noise of both is unrelated. Fed with the same values at every quantizer, the
two can be compared to the precision of their arithmetic.

The artifact runs in chunks, one after the other, so that neither it nor what is compared is in memory as a whole.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from qdx.backends.lockstep_chunks import CHUNK_LIMIT_BYTES, Chunk, Flow, plan_chunks
from qdx.exporter.errors import InvalidBundle, quoted
from qdx.exporter.formats.block_operators import BLOCK_QUANTIZERS

if TYPE_CHECKING:
    from torch.fx import Node

    from qdx.exporter.graph.ir.graph import Graph

__all__ = [
    "Found",
    "Lockstep",
    "LockstepRun",
    "RunChunk",
    "Sliceable",
    "UnknownQuantizer",
    "Values",
    "in_order",
    "is_fed",
    "quantizer_of",
    "quantizers",
    "shape_of",
]

Values = dict[str, NDArray[Any]]
RunChunk = Callable[[Mapping[str, NDArray[Any]]], Values]
_Sizes = dict[str, tuple[tuple[int, ...], np.dtype[Any]]]

_QUANTIZER: Final = re.compile(r"(?:.*/)?(?:de)?(quantize_(?:tensor|nvfp4|mxfp8)(?:_\d+)?)\Z")


class UnknownQuantizer(InvalidBundle):
    """An artifact has a quantizer that the quantized graph has not: it is the artifact of another graph.

    Attributes:
        name: The quantizer.
    """

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{quoted(name)}: the artifact has this quantizer, and its recipe of quantization has not",
            hint="export again",
        )
        self.name = name


class Sliceable(Protocol):
    """An artifact of which parts can be opened.

    Attributes:
        flow: What it computes, cut open at its quantizers.
    """

    flow: Flow

    def open(self, chunk: Chunk, arrays: Mapping[str, NDArray[Any]]) -> RunChunk:
        """Opens a part.

        Args:
            chunk: The part.
            arrays: What it will be given: those of `Chunk.taken`, by the names of the flow.

        Returns:
            What runs the part: from these arrays to those of `Chunk.made`, by the names of the flow.

        Raises:
            InvalidBundle: The runtime cannot open it.
        """


@dataclass(frozen=True)
class Found:
    """What a chunk has computed.

    Attributes:
        outputs: Outputs of the artifact.
        own: What the artifact would have given each quantizer itself, float32.
    """

    outputs: Values
    own: Values


class Lockstep:
    """An opened artifact whose quantizers take their inputs from outside.

    Args:
        artifact: Opens its chunks.

    Attributes:
        flow: What it computes.
        quantizers: Names of the quantizers at which it is cut, as `quantizers` gives them.
    """

    def __init__(self, artifact: Sliceable) -> None:
        self._artifact = artifact
        self._opened: tuple[tuple[Chunk, _Sizes], RunChunk] | None = None
        self.flow = artifact.flow
        self.quantizers = tuple(self.flow.sources)

    def start(
        self,
        inputs: Mapping[str, NDArray[Any]],
        sizes_bytes: Mapping[str, int],
        *,
        limit_bytes: int = CHUNK_LIMIT_BYTES,
    ) -> LockstepRun:
        """Begins one run.

        Args:
            inputs: By the artifact's names.
            sizes_bytes: Of each quantizer's input in this run, in float32.
            limit_bytes: What one chunk may take, see `CHUNK_LIMIT_BYTES`.
        """
        return LockstepRun(self, plan_chunks(self.flow, sizes_bytes, limit_bytes), inputs)

    def opened(self, chunk: Chunk, arrays: Mapping[str, NDArray[Any]]) -> RunChunk:
        """Opens a chunk, which stays open until another one is opened: for runs side by side.

        Raises:
            InvalidBundle: The runtime cannot open it.
        """
        opening = chunk, {name: (one.shape, one.dtype) for name, one in arrays.items()}
        if self._opened is None or self._opened[0] != opening:
            self._opened = None  # before the next one is opened: never two in memory
            self._opened = opening, self._artifact.open(chunk, arrays)
        return self._opened[1]


class LockstepRun:
    """One run of an artifact, chunk by chunk. What crosses from one to another is held until it is read.

    Attributes:
        chunks: In the order in which they run.
    """

    def __init__(
        self, artifact: Lockstep, chunks: tuple[Chunk, ...], inputs: Mapping[str, NDArray[Any]]
    ) -> None:
        self._artifact = artifact
        self._inputs = inputs
        self._crossing: Values = {}
        self._last_reads = {name: i for i, chunk in enumerate(chunks) for name in chunk.enters}
        self._position = 0
        self.chunks = chunks

    @property
    def pending(self) -> Chunk | None:
        """The chunk that runs next; None at the end."""
        return self.chunks[self._position] if self._position < len(self.chunks) else None

    def advance(self, values: Mapping[str, NDArray[Any]]) -> Found:
        """Runs the pending chunk.

        Args:
            values: What its quantizers are given, float32.

        Raises:
            InvalidBundle: The runtime cannot open the chunk.
        """
        chunk = self.chunks[self._position]
        flow = self._artifact.flow
        arrays = {name: self._inputs[name] for name in chunk.inputs}
        arrays |= {flow.given[name]: values[name] for name in chunk.given}
        arrays |= {name: self._crossing[name] for name in chunk.enters}
        results = self._artifact.opened(chunk, arrays)(arrays)
        self._crossing |= {name: results[name] for name in chunk.leaves}
        for name in chunk.enters:
            if self._last_reads[name] == self._position:
                del self._crossing[name]
        self._position += 1
        own = {
            name: results[flow.sources[name]].astype(np.float32, copy=False) for name in chunk.found
        }
        own |= {name: own[name] * flow.factors[name] for name in own if name in flow.factors}
        return Found({name: results[flow.outputs[name]] for name in chunk.outputs}, own)


def quantizers(graph: Graph) -> dict[str, Node]:
    """The quantizers of activations in a quantized graph, under the names that artifacts know them by.

    Artifacts number those of a kind in the order of execution, which is what torch's exporter does.
    """
    kinds: dict[Any, str] = {
        torch.ops.qdx.quantize_tensor.default: "quantize_tensor",
        **{operator: kind for kind, operator in BLOCK_QUANTIZERS.items()},
    }
    numbers: Counter[str] = Counter()
    found = {}
    for node in graph.program.graph.nodes:
        if node.target in kinds:
            kind = kinds[node.target]
            number = numbers[kind]
            found[f"{kind}_{number}" if number else kind] = node
            numbers[kind] += 1
    return found


def quantizer_of(name: str) -> str | None:
    """The name of the quantizer that a node of an artifact is; None for other nodes.

    >>> quantizer_of("mid.to_q/dequantize_tensor_3")
    'quantize_tensor_3'
    """
    found = _QUANTIZER.fullmatch(name)
    return found[1] if found else None


def shape_of(name: str, shapes: Mapping[str, tuple[int | None, ...]]) -> tuple[int | None, ...]:
    """The shape in the graph of what a quantizer of an artifact is given.

    Args:
        name: As `quantizer_of` gives it.
        shapes: Of all quantizers of the graph.

    Raises:
        UnknownQuantizer: The graph has none of this name. Those before it may be others' too then, since
            they are numbered.
    """
    if name not in shapes:
        raise UnknownQuantizer(name)
    return shapes[name]


def is_fed(shape: tuple[int | None, ...]) -> bool:
    """Whether a quantizer is given its input from outside.

    What is larger than a chunk may be, such as attention's probabilities for thousands of tokens, would be held several
    times over. Such a quantizer reads what the artifact computes, and is compared with what follows from it.

    Args:
        shape: Of its input, float32; None for sizes that are open.
    """
    sizes = [size for size in shape if size is not None]
    return len(sizes) < len(shape) or 4 * prod(sizes) <= CHUNK_LIMIT_BYTES


def in_order(sources: Mapping[str, str], shapes: Mapping[str, object]) -> dict[str, str]:
    """Sources by quantizer, in the order in which the graph runs the quantizers."""
    return {name: sources[name] for name in shapes if name in sources}
