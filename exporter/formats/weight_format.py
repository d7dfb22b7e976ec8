"""What a format of weights is: the one interface of all, from the plan's keys to the nodes of a graph. Imports no torch.

A format is a class of its own in a file of its own, which imports torch where it computes, and a line of
`registry.FORMATS`. Reading back goes through the operators of `graph.ir.operators`, which every backend lowers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from math import ceil, prod
from typing import TYPE_CHECKING, Any, NamedTuple

from qdx.exporter.dtypes import bits
from qdx.exporter.errors import InternalError

if TYPE_CHECKING:
    import torch
    from torch.fx import Node

    from qdx.exporter.formats.code_grid import CodeGrid
    from qdx.exporter.formats.quantization import AskedScheme, Scheme, WeightQuantization
    from qdx.exporter.formats.rounding import Rounding
    from qdx.exporter.graph.ir.learned_codes import LearnedCodes
    from qdx.exporter.graph.ir.weights import LazyWeight

    Insert = Callable[[Any, list[Any]], Node]

__all__ = ["PartSize", "SchemeFault", "StoredShape", "WeightFormat", "scale_count"]


class SchemeFault(NamedTuple):
    """A contradiction in what a plan asks for weights: the key, what is wrong with it, and what to do."""

    key: str
    words: str
    hint: str


@dataclass(frozen=True)
class StoredShape:
    """How a target stores one weight.

    Attributes:
        shape: Its sizes.
        output_axis: Its dimension of output channels.
        dtype: Type that holds its values, which may be wider than the asked one.
        scale_dtype: Type that holds its scales.
    """

    shape: tuple[int, ...]
    output_axis: int
    dtype: str
    scale_dtype: str

    def value_bytes(self, width: int) -> int:
        """Bytes of the values, of so many bits each."""
        return ceil(prod(self.shape) * width / 8)


class PartSize(NamedTuple):
    """How large one stored part of a weight is.

    Attributes:
        elements: Numbers in it.
        size_bytes: Their bytes, without what a file puts around them.
    """

    elements: int
    size_bytes: int


class WeightFormat(ABC):
    """One way to store weights in fewer bits.

    Attributes:
        dtypes: The names by which plans ask for it, in the order in which messages list them.
        one_block: Whether its blocks have one size, which no target halves.
    """

    dtypes: tuple[str, ...]
    one_block: bool = False

    def bits(self, dtype: str) -> int:
        """Bits of one stored value."""
        return bits(dtype)

    @abstractmethod
    def faults(self, scheme: AskedScheme, given: Collection[str]) -> Iterator[SchemeFault]:
        """Yields what contradicts itself in a scheme.

        Args:
            scheme: What a plan asks, with defaults where it says nothing.
            given: The keys that the plan gives, without `dtype`.
        """

    def completed(self, scheme: Scheme, storage: str) -> Mapping[str, Any]:
        """Keys that a plan may leave out and that the component decides.

        Args:
            scheme: What a plan asks.
            storage: Type in which the component stores its float weights.
        """
        del scheme, storage
        return {}

    def implied(self, dtype: str) -> Mapping[str, str | int | bool]:
        """Keys that a plan may leave unsaid and for which a type has one value alone."""
        del dtype
        return {}

    @abstractmethod
    def size_bytes(self, scheme: Scheme, stored: StoredShape) -> int:
        """Bytes of a weight in an artifact, with scales, zero points and tables."""

    def part_sizes(self, scheme: Scheme, stored: StoredShape) -> Mapping[str, PartSize]:
        """What an artifact stores of a weight, by the suffixes of `derive`; together `size_bytes`."""
        elements = prod(stored.shape)
        return {"": PartSize(elements, self.size_bytes(scheme, stored))}

    @abstractmethod
    def check(self, quantization: WeightQuantization) -> None:
        """Refuses a quantizer out of a bundle that no export writes; sizes fit the granularity already.

        Raises:
            ValueError: With what is expected.
        """

    def suffixes(self, quantization: WeightQuantization) -> tuple[str, ...]:
        """The suffixes of the parts that `derive` makes, the values' first."""
        del quantization
        return ("",)

    @abstractmethod
    def derive(
        self, weight: LazyWeight, quantization: WeightQuantization
    ) -> Mapping[str, LazyWeight]:
        """The stored parts of a lazy weight, by suffix; the integers, indices or elements under "".

        The float weight is read when a part is, and once where parts are read one after the other.
        """

    @abstractmethod
    def read_back(
        self, insert: Insert, parts: Mapping[str, Node], quantization: WeightQuantization
    ) -> Node:
        """Inserts the nodes that make float32 values of stored parts, and returns the last.

        Args:
            insert: Calls an operator with arguments, right before the operation that takes the weight.
            parts: Placeholders of the parts, by suffix.
            quantization: The quantizer.
        """

    @abstractmethod
    def values(
        self,
        weight: torch.Tensor,
        quantization: WeightQuantization,
        rounding: Rounding | LearnedCodes | None,
    ) -> torch.Tensor:
        """The float32 values that a quantized weight stands for, of its shape.

        Args:
            weight: Any float dtype.
            quantization: The quantizer.
            rounding: As in `LazyWeight`.
        """

    def grid(self, weight: torch.Tensor, quantization: WeightQuantization) -> CodeGrid:
        """What the elements of a weight may be, for methods that learn to round.

        A format whose `faults` refuse these methods has none.

        Args:
            weight: Any float dtype.
            quantization: The quantizer.

        Raises:
            InvalidModel: The weight cannot be quantized.
        """
        del weight
        raise InternalError(f"nothing learns to round to {quantization.dtype}")


def scale_count(scheme: Scheme, stored: StoredShape) -> int:
    """How many scales a weight has: one, one for each output channel, or one for each block along the other dimension."""
    shape, axis = stored.shape, stored.output_axis
    if scheme.granularity == "tensor" or not shape:
        return 1
    if scheme.granularity == "channel":
        return shape[axis]
    reduced = shape[1 - axis] if len(shape) > 1 else 1
    return prod(shape) // reduced * ceil(reduced / (scheme.block or 1))
