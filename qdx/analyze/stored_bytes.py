"""What files of a target hold for operations, to the byte."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from torch.fx import Node

from qdx.backends.capabilities import StoresWeights
from qdx.backends.stored_weights import part_sizes, stored_tensors
from qdx.exporter.cost.weight_file import FileLayout
from qdx.exporter.graph.analysis.flow import shape

if TYPE_CHECKING:
    from qdx.backends.contract import Backend
    from qdx.exporter.cost.weight_file import StoredTensor
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.graph.ir.site import Site
    from qdx.exporter.plan.resolve.resolution import SiteResolution

__all__ = ["stored_bytes", "tensors_of"]

_BIAS: Final = 2
"""Argument of convolutions and linear operations."""


def stored_bytes(graph: Graph, resolutions: Iterable[SiteResolution], backend: Backend) -> int:
    """Returns what files hold for operations: weights, scales, zero points, tables, and what a format puts around each.

    Not what brings large tensors onto a page, which depends on their neighbours and is less than a page for each. A weight
    that several operations share counts once.

    Args:
        graph: That they are in.
        resolutions: What becomes of them.
        backend: The target's.
    """
    layout = backend.weight_file if isinstance(backend, StoresWeights) else FileLayout()
    found: dict[str, StoredTensor] = {}
    for resolution in resolutions:
        for tensor in tensors_of(graph, resolution, backend):
            found.setdefault(tensor.name, tensor)
    return sum(layout.size_bytes(tensor) for tensor in found.values())


def tensors_of(
    graph: Graph, resolution: SiteResolution, backend: Backend
) -> tuple[StoredTensor, ...]:
    """Returns what files hold for one operation; where the backend does not tell, the parts of its weight."""
    if not isinstance(backend, StoresWeights):
        return stored_tensors(resolution, part_sizes(resolution))
    return backend.stored_tensors(resolution, _bias_elements(graph, resolution.site))


def _bias_elements(graph: Graph, site: Site) -> int:
    if site.weight is None:
        return 0
    node = next(one for one in graph.program.graph.nodes if one.name == site.node)
    bias = node.args[_BIAS] if len(node.args) > _BIAS else None
    return int(shape(bias)[0]) if isinstance(bias, Node) else 0
