"""Which parameters' rows are the channels of an activation, so that mixing them mixes the channels: linear layers in front.

Scaling a channel goes through many operations; mixing channels goes through those alone that treat all channels of a block
alike: moves that keep blocks together, factors without channels, and the weighing of an attention's values.
"""

from __future__ import annotations

import operator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

import torch
from torch.fx import Node

from qdx.exporter.graph.analysis.flow import shape
from qdx.exporter.graph.ir.editing import ProgramEditor

__all__ = ["MixedRows", "rows_to_mix"]

aten = torch.ops.aten

_SAME: Final = (
    aten.alias.default,
    aten.clone.default,
    aten.contiguous.default,
    aten.detach.default,
    aten.dropout.default,
)
_SHAPED: Final = (
    aten.view.default,
    aten.reshape.default,
    aten._unsafe_view.default,  # noqa: SLF001
    aten.flatten.using_ints,
    aten.unflatten.int,
)
_SCALED: Final = (aten.mul.Tensor, aten.mul.Scalar, aten.div.Tensor, aten.div.Scalar)
_CONVOLUTIONS: Final = ("conv1d", "conv2d", "conv3d")
_GROUPS: Final = 6
_SPLITS: Final = (aten.chunk.default, aten.split.Tensor, aten.split_with_sizes.default)
_VALUES: Final = 2
"""Argument of an attention."""


@dataclass(frozen=True)
class MixedRows:
    """Consecutive rows of a parameter.

    Attributes:
        placeholder: The parameter.
        start: Index of the first along dimension 0.
        count: How many.
    """

    placeholder: Node
    start: int
    count: int


def rows_to_mix(
    editor: ProgramEditor, node: Node, axis: int, block: int, users: AbstractSet[Node]
) -> tuple[MixedRows, ...] | None:
    """The parameter rows that give each channel of a node's value, if linear layers alone give them.

    Args:
        editor: The graph.
        node: What makes the value.
        axis: Dimension of its channels, from 0.
        block: Consecutive channels that are mixed with each other.
        users: All that may take the value; another user would take mixed channels.

    Returns:
        Rows to be mixed in blocks, each number of rows a multiple of the block; None where the value cannot be mixed this
        way.
    """
    if set(node.users) - users or node.op != "call_function" or not node.args:
        return None
    if node.target is operator.getitem:
        return _of_section(editor, node, axis, block)
    source, before = _step(node, axis, block)
    if source is not None:
        return None if before is None else rows_to_mix(editor, source, before, block, {node})
    if not _is_layer(node, axis):
        return None
    return _of_layer(editor, node, 0, shape(node)[axis], block)


def _step(node: Node, axis: int, block: int) -> tuple[Node | None, int | None]:
    """What a node moves, and where the channels are there; None for no move, or for one that parts a block."""
    source = node.args[_VALUES if _is_attention(node) else 0]
    last = len(shape(node)) - 1
    if not isinstance(source, Node):
        return None, None
    if _is_attention(node) or node.target in _SAME:
        return source, axis if axis == last or node.target in _SAME else None
    if node.target is aten.to.dtype:
        same = source.meta["val"].dtype == node.meta["val"].dtype
        return source, axis if same else None
    if node.target in _SCALED:
        by = node.args[1]
        return source, axis if isinstance(by, int | float) else None
    if node.target is aten.matmul.default and isinstance(node.args[1], Node):
        values = node.args[1]
        return values, len(shape(values)) - 1 if axis == last and values is not source else None
    if node.target is aten.transpose.int:
        one, other = (int(dim) % (last + 1) for dim in node.args[1:3])  # type: ignore[arg-type]
        return source, {one: other, other: one}.get(axis, axis)
    if node.target is aten.permute.default:
        return source, int(node.args[1][axis]) % (last + 1)  # type: ignore[index, arg-type]
    if node.target in _SHAPED:
        return source, _axis_before(shape(source), shape(node), axis, block)
    return None, None


def _is_attention(node: Node) -> bool:
    return node.target is aten.scaled_dot_product_attention.default


def _axis_before(
    before: tuple[int, ...], after: tuple[int, ...], axis: int, block: int
) -> int | None:
    """Where channels are before a change of shape that keeps blocks of them together; None behind any other."""
    if axis == 1 and len(before) > 2 and before[:2] == after[:2]:
        return 1
    is_last = axis == len(after) - 1
    return len(before) - 1 if is_last and not (before[-1] % block or after[-1] % block) else None


def _is_layer(node: Node, axis: int) -> bool:
    """Whether a node is a linear layer, or a convolution, without groups, that gives channels along the axis."""
    if node.target is aten.linear.default:
        return axis == len(shape(node)) - 1
    packet = getattr(node.target, "overloadpacket", None)
    if len(node.args) > _GROUPS and node.args[_GROUPS] != 1:
        return False
    return packet in [getattr(aten, name) for name in _CONVOLUTIONS] and axis == 1


def _of_layer(
    editor: ProgramEditor, node: Node, start: int, count: int, block: int
) -> tuple[MixedRows, ...] | None:
    """Rows of a layer's weight and bias, if nothing else takes them."""
    parameters = [one for one in node.args[1:3] if one is not None]
    for one in parameters:
        known = isinstance(one, Node) and editor.name_of(one) is not None
        if not known or set(one.users) != {node}:  # type: ignore[union-attr]
            return None
    if count % block or node.kwargs:
        return None
    return tuple(MixedRows(one, start, count) for one in parameters if isinstance(one, Node))


def _of_section(
    editor: ProgramEditor, node: Node, axis: int, block: int
) -> tuple[MixedRows, ...] | None:
    """One part of what a layer gives, split along its channels."""
    split, index = node.args[:2]
    if not isinstance(split, Node) or split.target not in _SPLITS or not isinstance(index, int):
        return None
    source = split.args[0]
    dim = split.args[2] if len(split.args) > 2 else 0
    alone = all(other is node or other.args[1] != index for other in split.users)
    if not isinstance(source, Node) or not isinstance(dim, int) or not alone:
        return None
    if dim % len(shape(source)) != axis or set(source.users) != {split}:
        return None
    if not _is_layer(source, axis):
        return None
    sizes = [int(part.shape[axis]) for part in split.meta["val"]]
    start = [0, *accumulate(sizes)][index]
    return _of_layer(editor, source, start, sizes[index], block)
