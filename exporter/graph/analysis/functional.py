"""A graph as values that are computed once: without writes in place, with what is alike, and with its constants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx import Node
from torch.fx.node import map_arg

from qdx.exporter.graph.analysis.flow import name_of, words, writes_in_place
from qdx.exporter.graph.ir.graph import Graph

__all__ = ["constant_number", "first_alike", "source_name", "without_writes"]

_COPIES: Final = words("_to_copy alias clone detach detach_ expand lift_fresh_copy")


def without_writes(graph: Graph) -> tuple[Graph, dict[str, str]]:
    """The graph with new values in the place of writes into old ones.

    Returns:
        That graph, the given one where it writes nothing; and the names of the given graph's nodes by those of its own,
        for the nodes that were made of one.
    """
    nodes = graph.program.graph.nodes
    if not any(map(writes_in_place, nodes)):
        return graph, {node.name: node.name for node in nodes}
    program = graph.program.run_decompositions({})
    origin = id(graph.program.graph)
    made = ((node.name, source_name(node, origin)) for node in program.graph.nodes)
    names = {name: source for name, source in made if source is not None}
    return replace(graph, program=program), names


def source_name(node: Node, graph: int) -> str | None:
    """The name of the node of a graph, by its id, that a pass of torch made another node of; None where it says none."""
    sources = node.meta.get("from_node")
    while sources:
        if sources[-1].graph_id == graph:
            return str(sources[-1].name)
        sources = sources[-1].from_node
    return None


def first_alike(nodes: Sequence[Node]) -> dict[Node, Node]:
    """For each node the first that computes the same from the same."""
    firsts: dict[Any, Node] = {}
    found: dict[Node, Node] = {}
    for node in nodes:
        if node.op != "call_function":
            found[node] = node
            continue
        arguments = map_arg((node.args, node.kwargs), lambda one: found[one])
        found[node] = firsts.setdefault((node.target, repr(arguments)), node)
    return found


def constant_number(graph: Graph, node: Node) -> float | None:
    """The number that a node holds in every call, as a constant or filled with it; None for any other node."""
    while name_of(node) in _COPIES and isinstance(node.args[0], Node):
        node = node.args[0]
    if name_of(node) in {"full", "scalar_tensor", "full_like"}:
        return next((one for one in node.args if isinstance(one, int | float)), None)
    target = graph.program.graph_signature.inputs_to_lifted_tensor_constants.get(node.name)
    value = None if target is None else graph.program.constants.get(target)
    if not isinstance(value, torch.Tensor) or isinstance(value, FakeTensor) or value.numel() != 1:
        return None
    return float(value)
