"""Attention opened where one of its products is quantized, as a transform of recipes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import Field

from qdx.exporter.graph.rewrites.open_attention import open_attention
from qdx.exporter.limits import RANGES_TENSORS_LIMIT
from qdx.exporter.transforms.transform import Choice, Key, StoredRecord, Tensors, Transform

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.graph import Graph

__all__ = ["OpenAttention"]


class _Stored(StoredRecord):
    sites: Annotated[tuple[Key, ...], Field(min_length=1, max_length=RANGES_TENSORS_LIMIT)]


@dataclass(frozen=True)
class OpenAttention(Transform):
    """Writes attention out around its softmax.

    Attributes:
        sites: Keys of the products whose attention is opened.
    """

    kind: ClassVar[str] = "open_attention"
    prepares: ClassVar[bool] = True
    Stored: ClassVar[type[StoredRecord]] = _Stored

    sites: tuple[str, ...]

    @classmethod
    def choose(cls, graph: Graph, choice: Choice) -> Self | None:
        """Opens the attention of every product whose inputs are quantized."""
        sites = choice.resolved.quantized_products(graph.where)
        return cls(sites) if sites else None

    def apply(self, graph: Graph) -> Graph:
        """See `Transform`."""
        return open_attention(graph, self.sites)

    def to_json(self) -> dict[str, Any]:
        """See `Transform`."""
        return {"sites": list(self.sites)}

    @classmethod
    def from_stored(cls, stored: _Stored, tensors: Tensors) -> Self:
        """See `Transform`."""
        del tensors
        return cls(stored.sites)
