"""The graphs of a pipeline in which a plan's calibration computes: at the sizes of its call, the same for any target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from qdx.exporter.errors import UsageError
from qdx.source.pipeline import trace_pipeline

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.plan.schema.plan import Plan
    from qdx.source.pipeline import TracedPipeline
    from qdx.source.planned import PlannedGraphs

__all__ = ["CalibratedGraphs", "calibrated_graphs"]


@dataclass(frozen=True)
class CalibratedGraphs:
    """What a calibration computes with.

    Attributes:
        source: The pipeline, traced with the call.
        call: The pipeline call, with what the plan calibrates differently.
        graphs: Every graph of the call by `component.method`, weights as pages of their files.
    """

    source: TracedPipeline
    call: dict[str, Any] = field(repr=False)
    graphs: Mapping[str, Graph] = field(repr=False)


def calibrated_graphs(
    source: TracedPipeline,
    plan: Plan,
    call: dict[str, Any],
    planned: PlannedGraphs | None = None,
) -> CalibratedGraphs:
    """The graphs of a pipeline at the sizes of a calibration.

    Args:
        source: The pipeline.
        plan: Whose calibration may have a call of its own.
        call: The pipeline call, its images loaded.
        planned: The graphs of an export, which serve where sizes are the same; None where there are none.

    Raises:
        UsageError: The pipeline does not take the plan's call.
    """
    given = source
    own = plan.calibration.call
    call = {**call, **(own or {})}
    if source.captured.moving or own:  # captured at other sizes than the calibration's
        components = sorted({record.component for record in source.chosen.values()})
        source = (
            _traced_as_planned(source, call, components)
            if own
            else trace_pipeline(source.folder, call, components=components)
        )
    traced = {
        where: graph
        for where, graph in (
            planned.graphs if planned is not None and source is given else {}
        ).items()
        if not graph.float16  # its guards would hide how large values become
    }
    graphs = {
        where: replace(
            traced.get(where) or source.graph(where),
            weights=source.mapped_weights[record.component],
        )
        for where, record in source.captured.calls.items()
    }
    return CalibratedGraphs(source, call, graphs)


def _traced_as_planned(
    source: TracedPipeline, call: dict[str, Any], components: Sequence[str]
) -> TracedPipeline:
    """The pipeline with the call that the plan calibrates with."""
    try:
        return trace_pipeline(source.folder, call, components=components)
    except UsageError as error:
        raise UsageError(
            f"plan: `calibration.call`: {error.message.removeprefix('--call: ')}",
            hint="change `calibration.call` in the plan, or leave it out",
        ) from error
