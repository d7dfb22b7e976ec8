"""The shapes that an engine of a dynamic graph is made for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qdx.backends.tensorrt.recipe import InputShapes
from qdx.exporter.graph.ir.graph import OpenSize

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.graph import Graph

__all__ = ["profiles"]


def profiles(graph: Graph) -> tuple[dict[str, InputShapes], ...]:
    """One table that holds every shape a graph is meant for; kernels are chosen for the usual one.

    Args:
        graph: With the target's names of its inputs.

    Returns:
        Shapes of the inputs with open sizes. Nothing for a static graph, and for one whose sizes nobody said, of
        which no engine can be built.
    """
    moving = [spec for spec in graph.inputs if any(isinstance(size, str) for size in spec.shape)]
    symbols = {size for spec in moving for size in spec.shape if isinstance(size, str)}
    if not moving or not symbols <= graph.sizes.keys():
        return ()

    table = {}
    for spec in moving:
        sizes = [_size(graph, size) for size in spec.shape]
        table[spec.name] = InputShapes(
            min=tuple(size.smallest for size in sizes),
            opt=tuple(size.usual for size in sizes),
            max=tuple(size.largest for size in sizes),
        )
    return (table,)


def _size(graph: Graph, size: int | str) -> OpenSize:
    return OpenSize(size, size, size) if isinstance(size, int) else graph.sizes[size]
