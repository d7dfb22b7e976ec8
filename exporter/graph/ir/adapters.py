"""Inputs of a graph that take low-rank adapters while it runs, and the mark of what computes with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from torch.fx import Node

__all__ = ["AdaptedLayer", "is_beside", "is_rotation", "mark_beside", "mark_rotation"]

_MARK: Final = "beside_a_layer"
_ROTATION: Final = "rotation"


@dataclass(frozen=True)
class AdaptedLayer:
    """A layer that takes an adapter: `layer(x) + up @ (down @ x)`.

    Attributes:
        path: Of the layer in its component.
        down: Name of the input [rank, inputs], float32.
        up: Name of the input [outputs, rank], float32; scales are multiplied into it.
        inputs: Channels that the layer takes.
        outputs: Channels that it gives.
    """

    path: str
    down: str
    up: str
    inputs: int
    outputs: int


def mark_beside(node: Node) -> Node:
    """Marks a node as part of an adapter: no plan addresses it."""
    node.meta[_MARK] = True
    return node


def is_beside(node: Node) -> bool:
    """Whether a node is part of an adapter."""
    return _MARK in node.meta


def mark_rotation(node: Node) -> Node:
    """Marks a node as part of a rotation in front of a layer: no plan addresses it, and it leaves what it takes what it is."""
    node.meta[_ROTATION] = True
    return mark_beside(node)


def is_rotation(node: Node) -> bool:
    """Whether a node is part of a rotation."""
    return _ROTATION in node.meta
