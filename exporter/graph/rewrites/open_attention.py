"""Opening attention into the two products that a plan can quantize."""

from __future__ import annotations

from collections.abc import Collection
from math import inf, sqrt
from typing import TYPE_CHECKING, Any

import torch
from torch.fx import Node

from qdx.exporter.errors import InternalError
from qdx.exporter.graph.analysis.attention import find_attention
from qdx.exporter.graph.analysis.flow import Flow
from qdx.exporter.graph.analysis.sites import sites
from qdx.exporter.graph.ir.editing import ProgramEditor

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.graph import Graph

__all__ = ["open_attention"]

aten = torch.ops.aten


def open_attention(graph: Graph, keys: Collection[str]) -> Graph:
    """Writes attention out around its softmax, so that its two products can be quantized.

    The scale is multiplied onto the queries, as the scores of quantized queries then need none. A mask of
    booleans and a causal mask set scores to minus infinity, a mask of numbers is added.

    Args:
        graph: A traced graph; it stays as it is.
        keys: Keys of `sites(graph)`: an attention is opened if one of its two products is named. Keys of
            other sites and of attention that is open already are ignored.

    Returns:
        A graph that computes the same, whose sites have the same keys; `graph` itself if nothing is to open.
    """
    nodes = dict.fromkeys(
        site.node for site in sites(graph) if site.key in keys and site.is_attention_product
    )
    flow = Flow(graph)
    closed = {found.scores.name for found in find_attention(flow) if not found.is_open}
    chosen = [name for name in nodes if name in closed]
    if not chosen:
        return graph
    editor = ProgramEditor(graph)
    for name in chosen:
        _open(editor, editor.node(name))
    return editor.finish()


def _open(editor: ProgramEditor, node: Node) -> None:
    """Replaces one scaled_dot_product_attention; dropout does nothing at inference."""
    given = _arguments(node)
    query, key, value = given["query"], given["key"], given["value"]

    def call(op: Any, *args: Any) -> Node:
        return editor.call(op, args, before=node, like=node)

    if given["enable_gqa"]:
        key, value = (_repeated_heads(call, query, x) for x in (key, value))
    scale = given["scale"]
    if scale is None:
        scale = 1 / sqrt(query.meta["val"].shape[-1])
    scaled = call(aten.mul.Tensor, query, scale)
    scores = call(aten.matmul.default, scaled, call(aten.transpose.int, key, -2, -1))
    if given["is_causal"]:
        scores = call(aten.where.ScalarOther, _causal(call, query, key), scores, -inf)
    mask = given["attn_mask"]
    if mask is not None and mask.meta["val"].dtype == torch.bool:
        scores = call(aten.where.ScalarOther, mask, scores, -inf)
    elif mask is not None:
        scores = call(aten.add.Tensor, scores, mask)
    probabilities = call(aten.softmax.int, scores, -1)
    node.replace_all_uses_with(call(aten.matmul.default, probabilities, value))
    editor.nodes.erase_node(node)


def _arguments(node: Node) -> dict[str, Any]:
    """The arguments of an attention node by name, defaults filled in."""
    if node.target is not aten.scaled_dot_product_attention.default:
        raise InternalError(f"`{node.name}` is not an attention")
    found = {}
    for i, argument in enumerate(aten.scaled_dot_product_attention.default._schema.arguments):  # noqa: SLF001
        default = argument.default_value
        given = node.args[i] if i < len(node.args) else node.kwargs.get(argument.name, default)
        found[argument.name] = given
    return found


def _repeated_heads(call: Any, query: Node, x: Node) -> Node:
    """Keys or values of fewer heads, [..., heads, tokens, channels], each repeated for its group of queries."""
    times = query.meta["val"].shape[-3] // x.meta["val"].shape[-3]
    if times == 1:
        return x
    repeated: Node = call(aten.repeat_interleave.self_int, x, times, -3)
    return repeated


def _causal(call: Any, query: Node, key: Node) -> Node:
    """Which keys a query may see: those at its position and before, bool [queries, keys]."""
    rows, columns = (call(aten.arange.default, _tokens(call, x)) for x in (query, key))
    visible: Node = call(aten.le.Tensor, columns, call(aten.unsqueeze.default, rows, 1))
    return visible


def _tokens(call: Any, x: Node) -> Any:
    """The number of tokens, as a node where it is known at run time only."""
    size = x.meta["val"].shape[-2]
    return size if type(size) is int else call(aten.sym_size.int, x, -2)
