"""A graph with the face that a target's layout gives it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from qdx.exporter.graph.ir.graph import OpenSize, without_variant

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.graph import Graph, TensorSpec
    from qdx.targets.profile import Port, TargetLayout


_BATCH = "batch"
"""What tracing calls the first dimension of the first input."""


def graph_in_layout(graph: Graph, layout: TargetLayout) -> Graph:
    """The same graph whose specs carry the layout's names, dtypes and ranks.

    The lowering adapts the program to its specs. A number that was traced without dimensions and is
    declared with one has that dimension of length one: a diffusion step has one timestep. Where the
    graph is dynamic that length is open, since one value is broadcast and as many as the batch fit too.
    An output that would share its name with an input is prefixed: `sample` comes out as `out_sample`.
    """
    at = (graph.component, without_variant(graph.method))
    dynamic = bool(graph.dynamic_symbols)
    inputs = tuple(
        _placed(s, layout.input(*at, s.name, s.dtype), dynamic=dynamic, scalars=layout.scalars)
        for s in graph.inputs
    )
    taken = {spec.name for spec in inputs}
    sizes = dict(graph.sizes)
    if sizes:
        batch = sizes.get(_BATCH, OpenSize(1, 1, 1))
        own = {size for spec in inputs for size in spec.shape if isinstance(size, str)}
        sizes |= dict.fromkeys(own - sizes.keys(), OpenSize(1, 1, batch.largest))
    outputs = (
        _placed(s, layout.output(*at, s.name, s.dtype), dynamic=False) for s in graph.outputs
    )
    return replace(
        graph,
        inputs=inputs,
        sizes=sizes,
        outputs=tuple(
            replace(spec, name=f"out_{spec.name}") if spec.name in taken else spec
            for spec in outputs
        ),
    )


def _placed(spec: TensorSpec, port: Port, *, dynamic: bool, scalars: bool = True) -> TensorSpec:
    shape = spec.shape
    if port.rank == 0 and shape == (1,):
        shape = ()
    elif not shape and (port.rank == 1 or not scalars):
        shape = (1,)
    if port.rank == 1 and dynamic and shape == (1,):
        shape = (f"{port.name}_0",)
    return replace(spec, name=port.name, dtype=port.dtype, shape=shape)
