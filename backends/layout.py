"""A graph with the face that a target's layout gives it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qdx.exporter.graph.graph import Graph, TensorSpec
    from qdx.targets.profile import Layout, Port


def graph_in_layout(graph: Graph, layout: Layout) -> Graph:
    """The same graph whose specs carry the layout's names, dtypes and ranks.

    The lowering adapts the program to its specs. A number that was traced without dimensions and is
    declared with one has that dimension of length one: a diffusion step has one timestep.
    """
    at = (graph.component, graph.method)
    return replace(
        graph,
        inputs=tuple(_placed(s, layout.input(*at, s.name, s.dtype)) for s in graph.inputs),
        outputs=tuple(_placed(s, layout.output(*at, s.name, s.dtype)) for s in graph.outputs),
    )


def _placed(spec: TensorSpec, port: Port) -> TensorSpec:
    shape = spec.shape
    if port.rank == 0:
        shape = ()
    elif port.rank == 1 and not shape:
        shape = (1,)
    return replace(spec, name=port.name, dtype=port.dtype, shape=shape)
