"""A graph without graphs inside, where those only say how gradients or another device are handled."""

from __future__ import annotations

from typing import Any, Final

from torch import fx
from torch.fx import Node

from qdx.exporter.graph.analysis.flow import name_of
from qdx.exporter.graph.ir.editing import ProgramEditor
from qdx.exporter.graph.ir.graph import Graph

__all__ = ["without_regions"]

_GRADIENTS: Final = "wrap_with_set_grad_enabled"
"""Its arguments: whether there are gradients, the graph, and what that reads."""
_AUTOCAST: Final = "wrap_with_autocast"
"""Its arguments: kind of device, type, whether casts are made, whether they are kept, the graph, and what that reads."""
_DEVICE: Final = "cpu"
"""On which components are traced."""


def without_regions(graph: Graph) -> Graph:
    """The same computation with the operations of such graphs in the place of the nodes that call them.

    A region in which casts are made on the device of the trace keeps its graph: it computes something else.
    """
    if all(_region(node) is None for node in graph.program.graph.nodes):
        return graph
    editor = ProgramEditor(graph)
    regions = graph.program.graph_module
    while True:  # regions stand in regions
        found = [node for node in editor.nodes.nodes if _region(node) is not None]
        for node in found:
            _inline(editor.nodes, regions, node)
        if not found:
            return editor.finish()


def _region(node: Node) -> tuple[Node, tuple[Any, ...]] | None:
    """The graph that a node calls, and what that reads; None for others."""
    name = name_of(node)
    if name == _GRADIENTS:
        _, inner, *operands = node.args
    elif name == _AUTOCAST:
        device, _, enabled, _, inner, *operands = node.args
        if enabled and device == _DEVICE:
            return None
    else:
        return None
    assert isinstance(inner, Node)
    return inner, tuple(operands)


def _inline(graph: fx.Graph, regions: fx.GraphModule, node: Node) -> None:
    found = _region(node)
    assert found is not None
    inner, operands = found
    region = getattr(regions, str(inner.target))
    given = iter(operands)
    twins: dict[Node, Any] = {}
    results: Any = ()
    with graph.inserting_before(node):
        for one in region.graph.nodes:
            if one.op == "placeholder":
                twins[one] = next(given)
            elif one.op == "output":
                results = fx.map_arg(one.args[0], lambda n: twins[n])
            else:
                twins[one] = twin = graph.node_copy(one, lambda n: twins[n])
                if one.op == "get_attr":  # a region inside
                    twin.target = f"{inner.target}_{one.target}"
                    setattr(regions, twin.target, getattr(region, str(one.target)))
    for user in list(node.users):
        if name_of(user) == "getitem":
            user.replace_all_uses_with(results[user.args[1]])
            graph.erase_node(user)
    if node.users:
        node.replace_all_uses_with(results)
    graph.erase_node(node)
    if not inner.users:
        graph.erase_node(inner)
