"""Attention that is written out, computed some queries at a time: its scores need not be in memory at once.

Between the product of queries with keys and that of probabilities with values every operation works on each query
by itself, so a block of queries goes through all of them before the next one. The scores of 4,096 tokens in 16
heads take a gigabyte; in blocks they stay within the processor's caches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.fx import Node

from qdx.exporter.graph.flow import name_of, shape

if TYPE_CHECKING:
    from qdx.exporter.graph.graph import Graph
    from qdx.exporter.graph.placed_calls import Call

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
        queries, keys = query.shape[-2], value(_keys(self)).shape[-1]
        rows = _rows_of_block((*query.shape[:-1], keys))
        outside = {node: value(node) for node in self._outside()}
        results: list[torch.Tensor] = []
        for start in range(0, queries, rows):
            block = start, min(rows, queries - start)
            inside: dict[Node, Any] = {self.query: query.narrow(-2, *block)}

            def part(node: Node, inside: Any = inside, block: tuple[int, int] = block) -> Any:
                if node in inside:
                    return inside[node]
                return _rows(outside[node], queries, block)

            for node in self.chain:
                inside[node] = _computed(node, part, outside, call)
                if node.name in observe:
                    observe[node.name](inside[node])
            results.append(_computed(self.result, part, outside, call))
        return torch.cat(results, dim=-2)

    def share(self, scores: tuple[int, ...]) -> float:
        """The share of the scores, float32 [..., queries, keys], that is there at a time."""
        return _rows_of_block(scores) / scores[-2]

    def _outside(self) -> list[Node]:
        """Everything else that the chain and the result take."""
        inside = {self.query, *self.chain}
        taken = dict.fromkeys(
            source for node in (*self.chain, self.result) for source in node.all_input_nodes
        )
        return [node for node in taken if node not in inside]


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
        if result is not None and node in chain and isinstance(query, Node):
            found.append(AttentionBlocks(query, chain, result))
    return tuple(found)


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


def _rows_of_block(scores: tuple[int, ...]) -> int:
    """How many queries are computed at a time, of scores [..., queries, keys]."""
    row_bytes = 4 * prod(scores) // scores[-2]
    return max(1, min(scores[-2], BLOCK_BYTES // max(1, row_bytes)))


def _rows(value: Any, queries: int, block: tuple[int, int]) -> Any:
    """The rows of a mask that belong to a block, its first and their number; what is the same for all as it is."""
    if isinstance(value, torch.Tensor) and value.dim() >= 2 and value.shape[-2] == queries > 1:
        return value.narrow(-2, *block)
    return value


def _computed(
    node: Node, part: Callable[[Node], Any], whole: Mapping[Node, Any], call: Call
) -> Any:
    """One node on one block; the second factor of a product is taken whole."""
    assert callable(node.target)
    args = list(torch.fx.map_arg(node.args, part))
    if name_of(node) in _PRODUCTS and isinstance(second := node.args[1], Node):
        args[1] = whole[second]
    return call(node.target, tuple(args), torch.fx.map_arg(node.kwargs, part))


def _keys(blocks: AttentionBlocks) -> Node:
    keys = blocks.chain[0].args[1]
    assert isinstance(keys, Node)
    return keys
