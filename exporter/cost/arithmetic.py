"""What a call of a graph computes."""

from __future__ import annotations

from qdx.exporter.graph.analysis.sites import sites
from qdx.exporter.graph.ir.graph import Graph

__all__ = ["macs_of_call"]


def macs_of_call(graph: Graph) -> int:
    """Returns the multiply-accumulates of one call: of convolutions, linear operations and products, attention's included.

    The call is the traced one, its batch included.
    """
    return sum(site.macs for site in sites(graph))
