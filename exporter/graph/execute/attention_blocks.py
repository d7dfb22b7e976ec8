"""Attention that is written out, computed some queries of a head at a time: its scores need not be in memory at once.

Between the product of queries with keys and that of probabilities with values every operation works on each query
by itself, so a block of queries goes through all of them before the next one. The scores of 4,096 tokens in 16
heads take a gigabyte; in blocks they stay within the processor's caches. A block is of one head, so that it has many
queries for the same keys and values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.fx import Node

from qdx.exporter.graph.analysis.flow import name_of, shape

if TYPE_CHECKING:
    from qdx.exporter.graph.execute.placed_calls import Call
    from qdx.exporter.graph.ir.graph import Graph

__all__ = ["BLOCK_BYTES", "AttentionBlocks", "find_attention_blocks"]

BLOCK_BYTES: Final = 2**22
"""Of the scores of one block of queries; attention whose scores are smaller is computed at once."""

_PRODUCTS: Final = frozenset({"matmul", "bmm"})
_BY_ELEMENT: Final = frozenset({
    "add", "sub", "mul", "div", "where", "masked_fill", "clamp", "tanh", "nan_to_num", "to", "_to_copy",
    "clone", "contiguous", "dropout", "quantize_tensor", "dequantize_tensor",
})  # fmt: skip
_QUANTIZERS: Final = frozenset({"quantize_tensor", "dequantize_tensor"})
_SOFTMAX: Final = frozenset({"softmax", "_softmax", "_safe_softmax"})


@dataclass(frozen=True)
class AttentionBlocks:
    """One attention that can be computed some queries at a time.

    Attributes:
        query: [..., queries, channels], what the first product takes.
        chain: The first product and all that follows from it alone, in order, without the result.
        result: The product of the probabilities with the values.
    """

    query: Node
    chain: tuple[Node, ...]
    result: Node

    def compute(
        self,
        value: Callable[[Node], Any],
        observe: Mapping[str, Callable[[torch.Tensor], None]],
        call: Call,
    ) -> torch.Tensor:
        """The result.

        Args:
            value: What a node outside of the chain has yielded.
            observe: By name of a node of the chain: told of every block of it.
            call: Calls the operators of the chain.
        """
        query = value(self.query)
        scores = (*query.shape[:-1], value(_keys(self)).shape[-1])
        outside = {node: value(node) for node in self.sources}
        for node in self._second_factors():
            outside[node] = outside[node].contiguous()  # else each block would copy it
        whole: torch.Tensor | None = None
        for block in _blocks(scores):
            inside: dict[Node, Any] = {}

            def part(node: Node, inside: Any = inside, block: _Block = block) -> Any:
                return inside[node] if node in inside else block.of(outside[node])

            def factor(node: Node, block: _Block = block) -> Any:
                return block.head_of(outside[node])

            for node in self.chain:
                inside[node] = _computed(node, part, factor, call)
                if node.name in observe:
                    observe[node.name](inside[node])
            result = _computed(self.result, part, factor, call)
            if whole is None:
                whole = result.new_empty(block.whole(tuple(result.shape)))
            block.of(whole).copy_(result)
        assert whole is not None
        return whole

    def share(self, scores: tuple[int, ...]) -> float:
        """The share of the scores, float32 [..., queries, keys], that is there at a time."""
        return _queries_of_block(scores) / (_heads(scores) * scores[-2])

    def _second_factors(self) -> list[Node]:
        """Keys and values, which the products take whole."""
        return [
            one for one in (self.chain[0].args[1], self.result.args[1]) if isinstance(one, Node)
        ]

    @property
    def sources(self) -> tuple[Node, ...]:
        """What the chain and the result take from outside, the query among it."""
        taken = dict.fromkeys(
            source for node in (*self.chain, self.result) for source in node.all_input_nodes
        )
        return tuple(node for node in taken if node not in self.chain)


def find_attention_blocks(graph: Graph) -> tuple[AttentionBlocks, ...]:
    """The attentions of a graph whose scores are large, and which can be computed some queries at a time."""
    found = []
    for node in graph.program.graph.nodes:
        if name_of(node) not in _SOFTMAX or 4 * prod(shape(node)) <= BLOCK_BYTES:
            continue
        scores = _scores(node)
        if scores is None:
            continue
        chain, result = _chain(scores)
        query = scores.args[0]
        if result is None or node not in chain or not isinstance(query, Node):
            continue
        if _multiplies_matrices(scores) and _multiplies_matrices(result):
            found.append(AttentionBlocks(query, chain, result))
    return tuple(found)


def _multiplies_matrices(product: Node) -> bool:
    """Whether queries and channels are the last two dimensions: a vector has but one."""
    return all(len(shape(factor)) >= 2 for factor in product.args)


def _scores(softmax: Node) -> Node | None:
    """The product of queries with keys that a softmax is taken of."""
    node = softmax
    while name_of(node) in _BY_ELEMENT | _SOFTMAX:
        same = [one for one in node.all_input_nodes if shape(one) == shape(node)]
        products = [one for one in same if name_of(one) in _PRODUCTS]
        node = (products or [one for one in same if name_of(one) in _BY_ELEMENT] or [softmax])[0]
        if node is softmax:
            return None
    return node if name_of(node) in _PRODUCTS else None


def _chain(scores: Node) -> tuple[tuple[Node, ...], Node | None]:
    """What follows from the scores, in order, and the product behind; None where some of it is not by query."""
    inside = {scores: None}
    node = scores.next
    while node.op != "output":
        if any(source in inside for source in node.all_input_nodes):
            if name_of(node) in _PRODUCTS:
                return tuple(inside), node if _is_result(node, inside) else None
            if not _is_by_query(node, inside):
                break
            inside[node] = None
        node = node.next
    return tuple(inside), None


def _is_result(node: Node, inside: Mapping[Node, None]) -> bool:
    """Whether a product multiplies the chain by values, and nothing else reads the chain."""
    leads_elsewhere = any(
        user not in inside and user is not node for one in inside for user in one.users
    )
    return node.args[0] in inside and node.args[1] not in inside and not leads_elsewhere


def _is_by_query(node: Node, inside: Mapping[Node, None]) -> bool:
    """Whether an operation computes each query by itself, and keeps the shape of the scores."""
    name = name_of(node)
    source = next(one for one in node.all_input_nodes if one in inside)
    if shape(node) != shape(source):
        return False
    if name in _SOFTMAX:
        return node.args[1] in (-1, len(shape(node)) - 1)
    if name in _QUANTIZERS:  # of the whole tensor, not with a scale for each query
        return all(one in inside or prod(shape(one)) == 1 for one in node.all_input_nodes)
    return name in _BY_ELEMENT


@dataclass(frozen=True)
class _Block:
    """Some queries of a head.

    Attributes:
        heads: How many heads there are, the number of this one, and 1.
        queries: How many queries a head has, the first one of the block, and their number.
    """

    heads: tuple[int, int, int]
    queries: tuple[int, int, int]

    def of(self, value: Any) -> Any:
        """The part of queries, scores or a mask; what is the same for all as it is."""
        return _part(self.head_of(value), -2, self.queries)

    def head_of(self, value: Any) -> Any:
        """The part of keys or values."""
        return _part(value, -3, self.heads)

    def whole(self, part: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of which the block has a part of this shape."""
        heads = (self.heads[0],) if self.heads[0] > 1 else part[-3:-2]
        return (*part[:-3], *heads, self.queries[0], part[-1])


def _part(value: Any, dim: int, part: tuple[int, int, int]) -> Any:
    size, first, count = part
    if not isinstance(value, torch.Tensor) or value.dim() < -dim or value.shape[dim] != size:
        return value
    return value if count == size else value.narrow(dim, first, count)


def _blocks(scores: tuple[int, ...]) -> Iterator[_Block]:
    """The blocks of scores, head by head."""
    heads, queries, most = _heads(scores), scores[-2], _queries_of_block(scores)
    for head in range(heads):
        for first in range(0, queries, most):
            yield _Block((heads, head, 1), (queries, first, min(most, queries - first)))


def _queries_of_block(scores: tuple[int, ...]) -> int:
    """How many queries of a head are computed at a time."""
    row_bytes = 4 * prod(scores) // (_heads(scores) * scores[-2])
    return max(1, min(scores[-2], BLOCK_BYTES // max(1, row_bytes)))


def _heads(scores: tuple[int, ...]) -> int:
    """Number of heads of scores [batch, heads, queries, keys]; 1 where heads and batch are one dimension.

    That one stays whole: who observes a block takes a part of the batch from its first dimension.
    """
    return scores[-3] if len(scores) > 3 else 1


def _computed(
    node: Node, part: Callable[[Node], Any], factor: Callable[[Node], Any], call: Call
) -> Any:
    """One node on one block; the second factor of a product is taken with all its keys."""
    assert callable(node.target)
    args = list(torch.fx.map_arg(node.args, part))
    if name_of(node) in _PRODUCTS and isinstance(second := node.args[1], Node):
        args[1] = factor(second)
    return call(node.target, tuple(args), torch.fx.map_arg(node.kwargs, part))


def _keys(blocks: AttentionBlocks) -> Node:
    keys = blocks.chain[0].args[1]
    assert isinstance(keys, Node)
    return keys
