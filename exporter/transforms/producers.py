"""Which parameters' rows are the channels of an activation: what can be scaled without a node of its own."""

from __future__ import annotations

import operator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

import torch
from torch.fx import Node

from qdx.exporter.graph.ir.editing import ProgramEditor

__all__ = ["Rows", "rows_behind"]

aten = torch.ops.aten

_NEUTRAL: Final = (
    aten.alias.default,
    aten.clone.default,
    aten.contiguous.default,
    aten.detach.default,
    aten.dropout.default,
)
"""Operations that leave values and shapes as they are, in inference."""
_CONVOLUTIONS: Final = (aten.conv1d.default, aten.conv2d.default, aten.conv3d.default)


@dataclass(frozen=True)
class Rows:
    """Consecutive rows of a parameter.

    Attributes:
        placeholder: The parameter.
        start: Index of the first along dimension 0.
    """

    placeholder: Node
    start: int = 0


def rows_behind(
    editor: ProgramEditor, node: Node, axis: int, users: AbstractSet[Node]
) -> tuple[Rows, ...] | None:
    """The parameter rows that scale each channel of a node's value, if there are such.

    Args:
        editor: The graph.
        node: What makes the value.
        axis: Dimension of its channels: 1, or -1 for the last.
        users: All that may take the value; another user makes the channels its business too.

    Returns:
        Rows that are all to be multiplied by what the channels are to be multiplied by; None where the
        value cannot be scaled this way.
    """
    if set(node.users) - users or "val" not in node.meta:
        return None
    if editor.name_of(node) is not None:  # a norm's scale, multiplied by hand
        return (Rows(node),) if node.meta["val"].dim() == 1 and axis == -1 else None
    if node.op != "call_function":
        return None
    if node.target in _NEUTRAL or node.target is aten.to.dtype:
        source = _argument(node, 0)
        same = source is not None and source.meta["val"].dtype == node.meta["val"].dtype
        return rows_behind(editor, source, axis, {node}) if same and source else None
    if node.target is aten.mul.Tensor:
        return _of_product(editor, node, axis)
    if node.target is operator.getitem:
        return _of_section(editor, node, axis)
    return _of_parameters(editor, _affine(node, axis), node)


def _affine(node: Node, axis: int) -> tuple[Any, ...]:
    """Weight and bias of an operation whose output channels lie along the axis; empty without such."""
    args: tuple[Any, ...] = (*node.args, *[None] * 5)
    if node.target is aten.linear.default and axis == -1:
        return args[1:3]
    if node.target in _CONVOLUTIONS and axis == 1:
        return args[1:3]
    if node.target is aten.group_norm.default and axis == 1:
        return args[2:4]
    if isinstance(args[1], list | tuple) and len(args[1]) == 1 and axis == -1:  # normalized sizes
        if node.target is aten.layer_norm.default:
            return args[2:4]
        if node.target is aten.rms_norm.default:
            return args[2:3]
    return ()


def _of_parameters(
    editor: ProgramEditor, parameters: tuple[Any, ...], user: Node
) -> tuple[Rows, ...] | None:
    """Whole parameters, a weight and perhaps a bias, if nothing else takes them."""
    if not parameters or parameters[0] is None:
        return None
    found = [parameter for parameter in parameters if parameter is not None]
    for parameter in found:
        known = isinstance(parameter, Node) and editor.name_of(parameter) is not None
        if not known or set(parameter.users) != {user}:
            return None
    return tuple(Rows(parameter) for parameter in found)


def _of_product(editor: ProgramEditor, node: Node, axis: int) -> tuple[Rows, ...] | None:
    """Either side of a product scales it, if that side has every channel."""
    size = node.meta["val"].shape[axis]
    for side in node.args[:2]:
        if not isinstance(side, Node) or node.args.count(side) > 1:
            continue
        value = side.meta["val"]
        aligned = axis == -1 or value.dim() == node.meta["val"].dim()
        if value.dim() and aligned and value.shape[axis] == size:
            found = rows_behind(editor, side, axis, {node})
            if found is not None:
                return found
    return None


def _of_section(editor: ProgramEditor, node: Node, axis: int) -> tuple[Rows, ...] | None:
    """One part of a value that was split along its channels: rows from an offset."""
    split = _argument(node, 0)
    source = None if split is None else _argument(split, 0)
    if split is None or source is None or split.target not in _SPLITS:
        return None
    dim = split.args[2] if len(split.args) > 2 else 0
    rank = source.meta["val"].dim()
    if not isinstance(dim, int) or dim % rank != axis % rank:
        return None
    sizes = [part.shape[axis] for part in split.meta["val"]]
    index = node.args[1]
    assert isinstance(index, int)
    if any(other is not node and other.args[1] == index for other in split.users):
        return None
    start = [0, *accumulate(sizes)][index]
    whole = rows_behind(editor, source, axis, {split})
    return None if whole is None else tuple(Rows(r.placeholder, r.start + start) for r in whole)


_SPLITS: Final = (aten.chunk.default, aten.split.Tensor, aten.split_with_sizes.default)


def _argument(node: Node, index: int) -> Node | None:
    found = node.args[index] if index < len(node.args) else None
    return found if isinstance(found, Node) else None
