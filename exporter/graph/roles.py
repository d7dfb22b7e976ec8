"""Roles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch.fx import Node

from qdx.exporter.graph.flow import Flow

if TYPE_CHECKING:
    from qdx.exporter.graph.attention import Attention

__all__ = ["Operation", "find_roles"]


@dataclass(frozen=True)
class Operation:
    """One operation that a plan can address, products of attention left out.

    Attributes:
        node: Its node.
        name: `conv2d`, `linear`, `matmul`, `group_norm` and the like.
        data: Argument index of the activation.
        weight: Argument index of the weight, or of the other activation.
        axis: Dimension of the activation along which the operation reduces.
    """

    node: Node
    name: str
    data: int
    weight: int
    axis: int = -1


def find_roles(
    flow: Flow, operations: Sequence[Operation], attention: Sequence[Attention]
) -> dict[Node, str]:
    """Finds roles."""
    return {operation.node: "other" for operation in operations}
