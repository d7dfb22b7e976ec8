"""Residual additions whose sum goes straight into a weighted operation, as at the end of a UNet's transformers.

A runtime that computes in integers can make such a sum in one kernel with the product that is added, and give
integers to what follows, if the other branch comes in integers too. Where a norm stands behind the sum, it is
needed in float anyway.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from torch.fx import Node

from qdx.exporter.graph.analysis.flow import KEEPS_WHOLE, Flow, Operation, name_of, shape
from qdx.exporter.graph.ir.adapters import is_beside

__all__ = ["Residual", "find_residuals"]

_ADDITION: Final = "add"
_PASSED: Final = KEEPS_WHOLE | {"dropout", "dropout_"}


@dataclass(frozen=True)
class Residual:
    """One residual addition.

    Attributes:
        node: The addition.
        skip: Argument index of the branch that is added to a weighted operation's result.
        product: The weighted operation.
    """

    node: Node
    skip: int
    product: Node


def find_residuals(flow: Flow, weighted: Sequence[Operation]) -> Iterator[Residual]:
    """Finds the additions of a weighted operation's result and something else that another weighted operation reads.

    Args:
        flow: The graph.
        weighted: Its convolutions and linear operations.
    """
    made = {operation.node for operation in weighted}
    read = {_origin(operation.input) for operation in weighted}
    for node in flow.nodes:
        if node not in read or name_of(node) != _ADDITION or node.kwargs:
            continue
        sides = [side for side in node.args[:2] if isinstance(side, Node)]
        if len(sides) < 2 or any(shape(side) != shape(node) for side in sides):
            continue  # a bias, or an embedding that is repeated for every pixel
        # Of two products, such as a shortcut's and a convolution's, the later one takes the other in.
        origins = [_origin(side) for side in sides]
        made_at = [flow.index[origin] if origin in made else -1 for origin in origins]
        if max(made_at) >= 0 and all(flow.depends[side] for side in sides):
            skip = made_at.index(min(made_at))
            yield Residual(node, skip, product=origins[1 - skip])


def _origin(node: Node) -> Node:
    """The node that another is a mere move of, divisions by one and what is added beside a layer left aside."""
    while node.op == "call_function" and (
        name_of(node) in _PASSED or _is_neutral(node) or _is_branch_sum(node)
    ):
        source = node.args[0]
        if not isinstance(source, Node):
            break
        node = source
    return node


def _is_branch_sum(node: Node) -> bool:
    """Whether it adds to a layer what is computed beside it."""
    return is_beside(node) and name_of(node) == _ADDITION


def _is_neutral(node: Node) -> bool:
    """Whether it divides or multiplies by one, as by a scale of outputs that is not used."""
    return bool(name_of(node) in {"div", "mul"} and node.args[1] == 1)
