"""Sizes that a dynamic graph is meant for: between those of the two calls of which the dry runs consist."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qdx.exporter.graph.ir.graph import OpenSize

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qdx.exporter.graph.ir.graph import TensorSpec

__all__ = ["open_sizes"]


def open_sizes(
    inputs: Sequence[TensorSpec],
    usual: Mapping[str, Sequence[int]],
    other: Mapping[str, Sequence[int]],
) -> dict[str, OpenSize]:
    """What each open dimension of a graph's inputs is meant to be.

    The least of a batch is one; of all else it is the smaller of the two calls' sizes, because nothing tells which
    smaller ones a model takes. The largest is the larger one of the two.

    Args:
        inputs: Of the graph; text is an open dimension.
        usual: Shapes of the inputs in the user's call.
        other: Shapes in the second call, which decided what is open.

    Returns:
        By the dimension's text, as it first occurs.
    """
    found: dict[str, OpenSize] = {}
    for spec in inputs:
        for axis, size in enumerate(spec.shape):
            if not isinstance(size, str) or size in found:
                continue
            one, two = usual[spec.name][axis], other[spec.name][axis]
            smallest = 1 if axis == 0 and size.isidentifier() else min(one, two)
            found[size] = OpenSize(smallest, one, max(one, two))
    return found
