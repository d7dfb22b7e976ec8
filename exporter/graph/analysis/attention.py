"""Attention: where it is in a graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from torch.fx import Node

from qdx.exporter.graph.analysis.flow import ARITHMETIC, MOVES, Flow, name_of

__all__ = [
    "Attention",
    "LinearAttention",
    "find_attention",
    "find_linear_attention",
]

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
