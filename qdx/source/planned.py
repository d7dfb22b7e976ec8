"""The graphs of a pipeline as a target wants them, and what a plan makes of their sites."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qdx.exporter.graph.analysis.sites import sites as find_sites
from qdx.exporter.plan.resolve.resolve import resolve

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.graph.ir.site import Site
    from qdx.exporter.plan.resolve.resolution import Resolution, ResolvedPlan
    from qdx.exporter.plan.schema.plan import Plan
    from qdx.source.pipeline import TracedPipeline
    from qdx.targets.profile import TargetProfile

__all__ = ["PlannedGraphs", "in_float16", "plan_graphs", "trace_graphs"]


@dataclass(frozen=True)
class PlannedGraphs:
    """The graphs of an export and what the plan makes of their sites.

    Attributes:
        graphs: By `component.method`, traced for the target.
        sites: Likewise.
        resolved: What becomes of them.
    """

    graphs: Mapping[str, Graph] = field(repr=False)
    sites: Mapping[str, tuple[Site, ...]] = field(repr=False)
    resolved: ResolvedPlan


def plan_graphs(source: TracedPipeline, plan: Plan, profile: TargetProfile) -> PlannedGraphs:
    """Traces what is wanted of a pipeline and resolves the plan for it.

    Raises:
        InvalidPlan: A rule matches nothing.
        TargetRefusal: A component cannot be traced, or the target cannot do what the plan asks.
    """

    def resolved(sites: Mapping[str, tuple[Site, ...]] | None) -> ResolvedPlan:
        modules, kinds = source.skeleton.modules, source.captured.kinds
        return resolve(plan, modules, profile, sites, kinds, upcast=source.upcast)

    graphs, sites = trace_graphs(source, profile, in_float16(resolved(None).components))
    return PlannedGraphs(graphs, sites, resolved(sites))


def in_float16(components: Iterable[Resolution]) -> frozenset[str]:
    """Names of the components that a target computes in float16, whose graphs are traced for it."""
    return frozenset(one.component for one in components if one.computes == "float16")


def trace_graphs(
    source: TracedPipeline, profile: TargetProfile, float16: Collection[str]
) -> tuple[dict[str, Graph], dict[str, tuple[Site, ...]]]:
    """Traces what is wanted of a pipeline for a target: graphs and their sites by `component.method`.

    Args:
        source: The pipeline.
        profile: The target.
        float16: Names of the components that it computes in float16.

    Raises:
        TargetRefusal: A component cannot be traced.
    """
    graphs = {
        where: source.graph(where, profile, float16=record.component in float16)
        for where, record in source.chosen.items()
    }
    return graphs, {where: find_sites(graph) for where, graph in graphs.items()}
