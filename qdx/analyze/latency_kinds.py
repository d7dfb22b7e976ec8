"""Which operations of a graph take the same time, and which stand beside each other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from qdx.analyze.latency_table import Neighbours
from qdx.exporter.graph.analysis.flow import numel, shape

if TYPE_CHECKING:
    from torch.fx import Node

    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.graph.ir.site import Site

__all__ = ["kinds_of", "neighbours_of"]


def kinds_of(graph: Graph, sites: Sequence[Site]) -> dict[str, str]:
    """What tells operations of different times apart, by key of the site: kind and shapes.

    Norms, embeddings and residual additions have none: no option changes them.
    """
    nodes = {node.name: node for node in graph.program.graph.nodes}
    found = {}
    for site in sites:
        if not site.ports or site.is_residual:
            continue
        node = nodes[site.node]
        inputs = [list(shape(node.args[index])) for index in site.ports.values()]
        weight = f", weight {list(site.weight_shape)}" if site.weight is not None else ""
        found[site.key] = (
            f"{site.op} {list(shape(node))} of {' and '.join(map(str, inputs))}{weight}"
        )
    return found


def neighbours_of(graph: Graph, sites: Sequence[Site]) -> tuple[Neighbours, ...]:
    """Pairs of sites of which one reads what the other makes, with no other of the sites between."""
    keys: dict[str, list[str]] = defaultdict(list)
    for site in sites:  # attention that is one node is two sites
        keys[site.node].append(site.key)
    makers: dict[Node, frozenset[str]] = {}
    elements: dict[str, int] = {}
    found: dict[tuple[str, str], None] = {}
    for node in graph.program.graph.nodes:
        read = frozenset(one for source in node.all_input_nodes for one in makers[source])
        own = keys.get(node.name)
        for key in own or ():
            found.update({(maker, key): None for maker in sorted(read)})
            elements[key] = numel(node)
        makers[node] = frozenset(own) if own else read
    return tuple(
        Neighbours(maker=maker, reader=reader, elements=elements[maker]) for maker, reader in found
    )
