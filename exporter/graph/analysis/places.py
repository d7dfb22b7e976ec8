"""Where in a component a node comes from, for messages."""

from __future__ import annotations

from torch.fx import Node

from qdx.exporter.graph.analysis.flow import Flow

__all__ = ["module_of"]


def module_of(node: Node, where: str) -> str:
    """The component and the module that a node was traced in, such as `transformer.blocks.0.attn`.

    Args:
        node: Of a traced graph.
        where: `component.method` of that graph, which is the answer where the node is of no module inside.
    """
    name = Flow.module(node).fqn
    return f"{where.partition('.')[0]}.{name}" if name else where
