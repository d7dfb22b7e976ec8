"""Attention: where it is in a graph, and opening it into the two products that a plan can quantize."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from math import inf, sqrt
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.fx import Node

from qdx.exporter.errors import InternalError
from qdx.exporter.graph.editing import ProgramEditor
from qdx.exporter.graph.flow import ARITHMETIC, MOVES, Flow, name_of

if TYPE_CHECKING:
    from qdx.exporter.graph.graph import Graph

__all__ = [
    "Attention",
    "LinearAttention",
    "find_attention",
    "find_linear_attention",
    "open_attention",
]

aten = torch.ops.aten

_SOFTMAX: Final = frozenset(["softmax", "_softmax", "_safe_softmax"])
_PRODUCTS: Final = frozenset(["matmul", "bmm"])
_BETWEEN: Final = (
    MOVES | ARITHMETIC | {"tanh", "clamp", "masked_fill", "where", "baddbmm", "nan_to_num"}
)
"""What may stand between the scores' product, the softmax and the product with the values."""


@dataclass(frozen=True)
class Attention:
    """One attention of a graph.

    Attributes:
        scores: The node that multiplies queries by keys.
        result: The node that multiplies probabilities by values; the same where attention is one node.
        query: [..., queries, channels], as `scores` takes it.
        key: [..., keys, channels] where attention is one node, else transposed.
        value: [..., keys, value channels].
        fqn: The attention module.
    """

    scores: Node
    result: Node
    query: Node
    key: Node
    value: Node
    fqn: str

    @property
    def is_open(self) -> bool:
        """Whether the two products are nodes of their own."""
        return self.scores is not self.result


def find_attention(flow: Flow) -> tuple[Attention, ...]:
    """Finds attention in one node, and attention that is written out around a softmax, in order."""
    found = []
    for node in flow.nodes:
        name = name_of(node)
        if name == "scaled_dot_product_attention":
            query, key, value = node.args[:3]
            assert isinstance(query, Node)
            assert isinstance(key, Node)
            assert isinstance(value, Node)
            found.append(Attention(node, node, query, key, value, flow.module(node).fqn))
        elif name in _SOFTMAX:
            opened = _around(flow, node)
            if opened is not None:
                found.append(opened)
    return tuple(found)


@dataclass(frozen=True)
class LinearAttention:
    """Attention without a softmax, whose values meet the keys before the queries.

    Attributes:
        query: What the second product takes besides the first.
        key: The factor of the first product whose channels the second one sums over.
        value: The other factor.
        result: The second product.
    """

    query: Node
    key: Node
    value: Node
    result: Node


def find_linear_attention(flow: Flow) -> tuple[LinearAttention, ...]:
    """Finds products of activations that lead straight into a second one, (v k') q or q (k' v)."""
    found = []
    for node in flow.nodes:
        if name_of(node) not in _PRODUCTS or not all(flow.depends[x] for x in node.all_input_nodes):
            continue
        result = node
        while len(users := flow.users(result)) == 1 and (
            result is node or name_of(result) in MOVES
        ):
            result = users[0]
        if name_of(result) not in _PRODUCTS or result is node:
            continue
        (left, right), (one, other) = node.all_input_nodes[:2], result.args[:2]
        if not isinstance(one, Node) or not isinstance(other, Node) or node.args[0] is node.args[1]:
            continue
        is_left = node is one or node in flow.unmoved(one)
        key, value, query = (right, left, other) if is_left else (left, right, one)
        found.append(LinearAttention(query, key, value, result))
    return tuple(found)


def _around(flow: Flow, softmax: Node) -> Attention | None:
    """The products before and behind a softmax, if both are there."""
    scores = _product_before(flow, softmax)
    result = _product_behind(flow, softmax)
    if scores is None or result is None:
        return None
    (query, key), value = scores.args[:2], result.args[1]
    if not (isinstance(query, Node) and isinstance(key, Node) and isinstance(value, Node)):
        return None
    return Attention(scores, result, query, key, value, flow.module(softmax).fqn)


def _product_before(flow: Flow, softmax: Node) -> Node | None:
    pending, seen = [softmax], {softmax}
    products = []
    while pending:
        for source in flow.sources(pending.pop()):
            if source in seen:
                continue
            seen.add(source)
            if name_of(source) in _PRODUCTS and flow.depends[source]:
                products.append(source)
            elif name_of(source) in _BETWEEN:
                pending.append(source)
    return products[0] if len(products) == 1 else None


def _product_behind(flow: Flow, softmax: Node) -> Node | None:
    """The product whose first factor is the softmax, moved or cast."""
    node = softmax
    while len(users := flow.users(node)) == 1:
        user = users[0]
        name = name_of(user)
        if name in _PRODUCTS:
            return user if user.args[0] is node else None
        if name not in _BETWEEN:
            return None
        node = user
    return None


def open_attention(graph: Graph, keys: Collection[str]) -> Graph:
    """Writes attention out around its softmax, so that its two products can be quantized.

    The scale is multiplied onto the queries, as the scores of quantized queries then need none. A mask of
    booleans and a causal mask set scores to minus infinity, a mask of numbers is added. Unlike in the
    node that it replaces, a row in which everything is masked becomes NaN instead of zeros.

    Args:
        graph: A traced graph; it stays as it is.
        keys: Keys of `sites(graph)`: an attention is opened if one of its two products is named. Keys of
            other sites and of attention that is open already are ignored.

    Returns:
        A graph that computes the same, whose sites have the same keys; `graph` itself if nothing is to open.
    """
    from qdx.exporter.graph.sites import sites  # which finds attention through this module

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
        raise InternalError(f"`{node.name}` is no attention")
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
