"""What files of a target hold for operations, to the byte."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from torch.fx import Node

from qdx.backends.capabilities import StoresWeights
from qdx.backends.stored_weights import part_sizes, stored_tensors
from qdx.exporter.cost.weight_file import FileLayout
from qdx.exporter.graph.analysis.flow import shape
from qdx.exporter.graph.analysis.precision import float32_nodes
from qdx.exporter.graph.analysis.sites import sites as find_sites
from qdx.exporter.transforms.time_embedding import has_time_table

if TYPE_CHECKING:
    from qdx.backends.contract import Backend
    from qdx.exporter.cost.weight_file import StoredTensor
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.graph.ir.site import Site
    from qdx.exporter.plan.resolve.resolution import FloatTypes, SiteResolution

__all__ = ["StoredBytes"]

_BIAS: Final = 2
"""Argument of convolutions and linear operations."""
_HALVES: Final = ("float16", "bfloat16")
_CARRIES: Final = "shortcut"
"""In mixed precision these stay in float32, since they carry what no other path brings back."""


class StoredBytes:
    """What files of one target hold for operations of one graph.

    Args:
        graph: The graph.
        float_types: Of what is not quantized of its component.
        computes: The type in which the target computes the component.
        backend: The target's. Where it does not tell what it stores, what formats of weights make counts.

    Attributes:
        layout: What the file of weights puts around tensors.
    """

    def __init__(
        self, graph: Graph, float_types: FloatTypes, computes: str, backend: Backend
    ) -> None:
        self._backend = backend
        self.layout = backend.weight_file if isinstance(backend, StoresWeights) else FileLayout()
        self._nodes = {node.name: node for node in graph.program.graph.nodes}
        self._float32: frozenset[str] = frozenset()
        if computes in _HALVES:
            found = find_sites(graph)
            kept = set(float32_nodes(graph, found, time_table=has_time_table(graph)))
            if float_types.mixed:
                kept |= {site.node for site in found if site.role == _CARRIES}
            self._float32 = frozenset(kept)

    def tensors(self, resolution: SiteResolution) -> tuple[StoredTensor, ...]:
        """What files hold for one operation."""
        float32 = resolution.site.node in self._float32
        if not isinstance(self._backend, StoresWeights):
            return stored_tensors(resolution, part_sizes(resolution, float32=float32))
        bias = self._bias_elements(resolution.site)
        return self._backend.stored_tensors(resolution, bias_elements=bias, float32=float32)

    def of(self, resolutions: Iterable[SiteResolution]) -> int:
        """Bytes of operations: weights, scales, zero points, tables, and what the format puts around each.

        Not what brings large tensors onto a page, which depends on their neighbours and is less than a page for each. A
        weight that several operations share counts once.

        Args:
            resolutions: What becomes of them.
        """
        return sum(self.layout.size_bytes(one) for one in self.distinct(resolutions))

    def distinct(self, resolutions: Iterable[SiteResolution]) -> Sequence[StoredTensor]:
        """What files hold for operations, each tensor once."""
        found: dict[str, StoredTensor] = {}
        for resolution in resolutions:
            for tensor in self.tensors(resolution):
                found.setdefault(tensor.name, tensor)
        return tuple(found.values())

    def _bias_elements(self, site: Site) -> int:
        node = self._nodes.get(site.node)
        bias = node.args[_BIAS] if node is not None and len(node.args) > _BIAS else None
        weighted = site.weight is not None and not site.is_product
        return int(shape(bias)[0]) if weighted and isinstance(bias, Node) else 0
