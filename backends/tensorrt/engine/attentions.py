"""The attentions of a model file: two products with a softmax between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Attention", "attentions_of"]

_BETWEEN: Final = frozenset(
    {
        "Add",
        "Cast",
        "DequantizeLinear",
        "Div",
        "Identity",
        "Max",
        "Mul",
        "QuantizeLinear",
        "Reshape",
        "Sub",
        "Where",
    }
)
"""What scales, masks, casts and quantizes scores on their way to the softmax and from there."""
_FURTHEST: Final = 12


@dataclass(frozen=True)
class Attention:
    """One attention.

    Attributes:
        name: Of the module that its softmax belongs to.
        first: The product of queries and keys.
        softmax: Of the scores.
        second: The product with the values.
    """

    name: str
    first: ir.Node
    softmax: ir.Node
    second: ir.Node


def attentions_of(model: ir.Model) -> tuple[Attention, ...]:
    """Every attention, in order. A softmax without products on both sides, such as a classifier's, is none."""
    return tuple(_attentions(model))


def _attentions(model: ir.Model) -> Iterator[Attention]:
    for node in model.graph:
        if node.op_type == "Softmax":
            first, second = _before(node), _after(node)
            if first is not None and second is not None:
                name = str(node.name)
                yield Attention(name.rpartition("/")[0] or name, first, node, second)


def _before(softmax: ir.Node) -> ir.Node | None:
    """The product whose scores a softmax reads."""
    nodes = [softmax]
    for _ in range(_FURTHEST):
        makers = [value.producer() for node in nodes for value in node.inputs if value is not None]
        nodes = [one for one in makers if one is not None]
        found = next((one for one in nodes if one.op_type == "MatMul"), None)
        if found is not None:
            return found
        nodes = [one for one in nodes if one.op_type in _BETWEEN]
    return None


def _after(softmax: ir.Node) -> ir.Node | None:
    """The product that reads what a softmax makes, as its first factor."""
    nodes = [softmax]
    for _ in range(_FURTHEST):
        uses = [use for node in nodes for value in node.outputs for use in value.uses()]
        found = next((one for one, at in uses if one.op_type == "MatMul" and at == 0), None)
        if found is not None:
            return found
        nodes = [use.node for use in uses if use.node.op_type in _BETWEEN]
    return None
