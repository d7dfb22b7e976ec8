"""What plans come to for a pipeline on a target: every operation's schemes, without the words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.kind import Kind
    from qdx.exporter.graph.ir.site import Site
    from qdx.exporter.plan import Plan, PlanTarget, ResolvedPlan, SiteResolution
    from qdx.source.pipeline import TracedPipeline
    from qdx.targets.profile import TargetProfile

__all__ = ["Outcome", "Pipeline", "first_different", "outcomes_of", "pipeline_of"]


@dataclass(frozen=True)
class Pipeline:
    """What plans are resolved for.

    Attributes:
        components: Names of all components with weights.
        sites: Of each traced graph by `component.method`.
        kinds: What components do.
        upcast: Components in which float16 overflows.
        target: The target.
    """

    components: tuple[str, ...]
    sites: Mapping[str, Sequence[Site]]
    kinds: Mapping[str, Kind]
    upcast: frozenset[str]
    target: PlanTarget

    def resolved(self, plan: Plan) -> ResolvedPlan:
        """What becomes of a plan, refusals among it."""
        from qdx.exporter.plan import examine

        examined = examine(
            plan, self.components, self.target, self.sites, self.kinds, upcast=self.upcast
        )
        return examined.resolved


def pipeline_of(source: TracedPipeline, profile: TargetProfile, base: Plan) -> Pipeline:
    """Returns what plans are resolved for: the sites of all graphs as the target has them."""
    from qdx.source.planned import plan_graphs

    planned = plan_graphs(source, base, profile)
    return Pipeline(
        tuple(source.skeleton.modules),
        planned.sites,
        source.captured.kinds,
        frozenset(source.upcast),
        profile,
    )


Outcome = tuple[Any, ...]


def outcomes_of(resolved: ResolvedPlan) -> dict[tuple[str, str], Outcome]:
    """Returns what becomes of every operation by graph and name, without the words."""
    return {(w, one.key): _outcome(one) for w, graph in resolved.sites.items() for one in graph}


def _outcome(one: SiteResolution) -> Outcome:
    return (one.weights, one.inputs, one.stored_dtype, one.scale_dtype, one.form)


def first_different(
    wanted: Mapping[tuple[str, str], Outcome], found: Mapping[tuple[str, str], Outcome]
) -> str | None:
    """Returns the first operation of which something else becomes than wanted; None for none."""
    return next((".".join(p) for p, outcome in wanted.items() if found[p] != outcome), None)
