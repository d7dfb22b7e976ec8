"""A graph in which attention has something to attend to in every row, as padding in front of a text has not.

torch answers zeros where a mask hides everything; written out, the softmax of such a row is no number, which reaches all
others in the next layer. So these rows see everything, and their answers are multiplied by zero.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from qdx.exporter.graph.analysis.flow import name_of
from qdx.exporter.graph.ir.editing import ProgramEditor
from qdx.exporter.graph.ir.graph import Graph

__all__ = ["without_masked_rows"]

aten = torch.ops.aten
_MASK = 3
"""Where `scaled_dot_product_attention` has its mask."""


def without_masked_rows(graph: Graph) -> Graph:
    """The same computation without rows that are masked as a whole; the graph itself where it can have none.

    A mask that is the same for every query hides all of them from everything, or none; one that no input decides is the
    model's own. Both stay.
    """
    decided = _decided_by_inputs(graph)
    if not any(_may_hide_rows(node, decided) for node in graph.program.graph.nodes):
        return graph
    editor = ProgramEditor(graph)
    seen: dict[Node, tuple[Node, Node]] = {}
    for node in list(editor.nodes.nodes):
        if not _may_hide_rows(node, decided):
            continue
        mask = _mask_of(node)
        assert mask is not None
        if mask not in seen:
            seen[mask] = _rows(editor, mask, node)
        rows, filled = seen[mask]
        _replace_mask(node, filled)
        users = list(node.users)
        product = editor.call(aten.mul.Tensor, (node, rows), after=node, like=node)
        for user in users:
            user.replace_input_with(node, product)
    return editor.finish()


def _rows(editor: ProgramEditor, mask: Node, node: Node) -> tuple[Node, Node]:
    """Which rows see something, as float32 ones and zeros; and the mask in which the others see everything."""

    def call(op: Any, *args: Any) -> Node:
        return editor.call(op, args, before=node, like=node)

    rows = call(aten.amax.default, call(aten.to.dtype, mask, torch.float32), [-1], True)
    return rows, call(aten.logical_or.default, mask, call(aten.lt.Scalar, rows, 0.5))


def _decided_by_inputs(graph: Graph) -> set[str]:
    """Names of the nodes that an input of the graph decides."""
    inputs = set(graph.program.graph_signature.user_inputs)
    found: set[str] = set()
    for node in graph.program.graph.nodes:
        if node.name in inputs or any(one.name in found for one in node.all_input_nodes):
            found.add(node.name)
    return found


def _may_hide_rows(node: Node, decided: set[str]) -> bool:
    mask = _mask_of(node)
    if mask is None or mask.name not in decided:
        return False
    value: torch.Tensor = mask.meta["val"]
    return value.dtype == torch.bool and value.dim() > 1 and value.shape[-2] != 1


def _mask_of(node: Node) -> Node | None:
    if name_of(node) != "scaled_dot_product_attention":
        return None
    mask = node.args[_MASK] if len(node.args) > _MASK else node.kwargs.get("attn_mask")
    return mask if isinstance(mask, Node) else None


def _replace_mask(node: Node, mask: Node) -> None:
    if len(node.args) > _MASK:
        node.update_arg(_MASK, mask)
    else:
        node.update_kwarg("attn_mask", mask)
