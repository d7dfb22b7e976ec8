"""From intent to resolution: what a plan means for one pipeline on one target."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from qdx.exporter.errors import InvalidPlan, Refusal, TargetRefusal, quoted
from qdx.exporter.graph.ir.site import Site
from qdx.exporter.plan.resolve.faster import compared_macs
from qdx.exporter.plan.resolve.feasibility import PlanTarget, computed_in
from qdx.exporter.plan.resolve.reach import check_reach
from qdx.exporter.plan.resolve.resolution import Resolution, ResolvedPlan, SiteResolution
from qdx.exporter.plan.resolve.resolve_site import (
    GraphRequest,
    resolve_site,
    with_met_products,
    with_shared_weights,
    with_whole_attention,
)
from qdx.exporter.plan.schema.load import list_presets, load_plan
from qdx.exporter.plan.schema.plan import Plan
from qdx.exporter.plan.schema.rule import matches
from qdx.exporter.plan.schema.selection import Decision, decide, name_of, storage_rule

__all__ = ["Examination", "examine", "resolve"]


@dataclass(frozen=True)
class Examination:
    """A resolution in which the target may have refused things.

    Attributes:
        resolved: What becomes of each component and site; refused sites have form `refused`, refused
            components the type that was asked.
        refusals: Each thing refused, components first, then sites in graph order.
        hint: What to do about them.
    """

    resolved: ResolvedPlan
    refusals: tuple[Refusal, ...]
    hint: str

    def check(self) -> ResolvedPlan:
        """Returns the resolution.

        Raises:
            TargetRefusal: Something was refused.
        """
        if self.refusals:
            raise TargetRefusal(self.summary, refusals=self.refusals, hint=self.hint)
        return self.resolved

    @property
    def summary(self) -> str:
        """The refusals in one line."""
        names = {resolution.component for resolution in self.resolved.components}
        components = sum(refusal.site in names for refusal in self.refusals)
        counts = [(components, "component"), (len(self.refusals) - components, "operation")]
        words = [f"{count} {noun}{'s'[: count > 1]}" for count, noun in counts if count]
        return f"`{self.resolved.target}` cannot do what the plan asks for {' and '.join(words)}"


def resolve(
    plan: Plan,
    components: Iterable[str],
    target: PlanTarget,
    sites: Mapping[str, Sequence[Site]] | None = None,
) -> ResolvedPlan:
    """Decides for each component and each site which rule holds and what the target makes of it.

    A component that no rule matches keeps float32, and says so; a site that no rule matches is
    stored as its component is.

    Args:
        plan: The intent.
        components: Names of all components of the pipeline that carry weights, also of those that
            will not be exported: a rule for one of these is not a mistake.
        target: The target.
        sites: Sites of each traced graph by `component.method`. None where nothing was traced: rules
            that speak of single operations are then read and decide nothing.

    Raises:
        InvalidPlan: A rule matches nothing, or later rules take all that it matches.
        TargetRefusal: The target cannot do something that the plan asks; names all of it.
    """
    return examine(plan, components, target, sites).check()


def examine(
    plan: Plan,
    components: Iterable[str],
    target: PlanTarget,
    sites: Mapping[str, Sequence[Site]] | None = None,
) -> Examination:
    """Resolves like `resolve`, and returns what the target refuses instead of raising it.

    Raises:
        InvalidPlan: As `resolve`.
        TargetRefusal: The target's artifacts cannot be made by the plan's quantizer, or with one of its options.
    """
    names = tuple(components)
    examination = _examined(plan, names, target, sites)
    if not examination.refusals or sites is None:
        return examination
    fitting = [quoted(name) for name in list_presets() if _fits(name, names, target, sites)]
    if not fitting:
        return examination
    return replace(
        examination, hint=f"presets that fit are {', '.join(fitting)}; {examination.hint}"
    )


def _fits(
    preset: str, components: Sequence[str], target: PlanTarget, sites: Mapping[str, Sequence[Site]]
) -> bool:
    """Whether a preset quantizes something here, and nothing that the target refuses."""
    try:
        examination = _examined(load_plan(preset), components, target, sites)
    except (InvalidPlan, TargetRefusal):
        return False  # a rule of its own matches nothing here, or the target has not one of its options
    resolved = examination.resolved
    return not examination.refusals and any(resolved.quantized(where) for where in sites)


def _examined(
    plan: Plan,
    components: Iterable[str],
    target: PlanTarget,
    sites: Mapping[str, Sequence[Site]] | None,
) -> Examination:
    _check_quantizer(plan, target)
    _check_options(plan, target)
    names = tuple(dict.fromkeys(components))
    storage = {name: storage_rule(plan, name) for name in names}
    traced = {where: where.partition(".")[0] for where in sites or {}}
    decisions = {
        where: decide(plan, traced[where], graph) for where, graph in (sites or {}).items()
    }
    pairs = [(traced[where], site) for where, graph in (sites or {}).items() for site in graph]
    decided: dict[tuple[str, str], set[int]] = {}
    for where, graph in (sites or {}).items():
        for site, decision in zip(graph, decisions[where], strict=True):
            decided.setdefault((traced[where], site.key), set()).update(decision.rules)
    check_reach(plan, names, None if sites is None else pairs, storage, decided)
    _check_nncf(plan, names)
    resolutions = tuple(_component(plan, name, index, target) for name, index in storage.items())
    becomes = {resolution.component: resolution.becomes for resolution in resolutions}
    resolved_sites = {
        where: _graph(
            GraphRequest(plan, where, becomes.get(traced[where], "float32"), target),
            graph,
            decisions[where],
        )
        for where, graph in (sites or {}).items()
    }
    resolved = ResolvedPlan(plan, target.name, resolutions, resolved_sites)
    return _examination(resolved, target)


def _graph(
    request: GraphRequest, sites: Sequence[Site], decisions: Sequence[Decision]
) -> tuple[SiteResolution, ...]:
    macs = compared_macs(sites)
    resolved = with_shared_weights(
        resolve_site(request, site, decision, macs[site.key])
        for site, decision in zip(sites, decisions, strict=True)
    )
    return with_met_products(with_whole_attention(resolved))


def _examination(resolved: ResolvedPlan, target: PlanTarget) -> Examination:
    stored = ", ".join(target.storage_dtypes)
    components = [
        _refusal(resolution, target)
        for resolution in resolved.components
        if resolution.asked not in target.storage_dtypes
    ]
    refused = [
        resolution
        for graph in resolved.sites.values()
        for resolution in graph
        if resolution.form == "refused"
    ]
    hint = (
        f"choose another type for these components or another target; `{target.name}` stores {stored}"
        if components
        else "a later rule can ask something else of these operations, such as "
        f"{_floats_of(resolved, refused)}; `qdx targets` describes what there is"
    )
    return Examination(resolved, (*components, *map(_site_refusal, refused)), hint)


def _floats_of(resolved: ResolvedPlan, refused: Iterable[SiteResolution]) -> str:
    """What keeps these sites float: the types of their components, because a component has one."""
    owners = [resolution.where.partition(".")[0] for resolution in refused]
    dtypes = dict.fromkeys(resolved.storage_dtype(owner) for owner in owners)
    return " or ".join(f'`"keep": "{dtype}"`' for dtype in dtypes)


def _component(plan: Plan, name: str, index: int | None, target: PlanTarget) -> Resolution:
    rule = None if index is None else plan.rules[index].asked_weights
    asked = "float32" if rule is None else rule.dtype
    computed = computed_in(target, asked)
    why = _why(asked, computed, default=index is None)
    if plan.options.mixed_precision and computed != "float32":
        why += ", but float32 between products"
    return Resolution(name, asked, name_of(plan, index), asked, computed, why)


def _check_quantizer(plan: Plan, target: PlanTarget) -> None:
    if plan.quantizer == "qdx" or plan.quantizer in target.quantizers:
        return
    raise TargetRefusal(
        f"{quoted(plan.place('quantizer'))}: quantizer `{plan.quantizer}` makes no artifacts for "
        f"`{target.name}`",
        hint=f"its quantizers are {', '.join(target.quantizers)}",
    )


def _check_options(plan: Plan, target: PlanTarget) -> None:
    for name, reason in target.refused_options.items():
        if name in plan.options.changed:
            raise TargetRefusal(
                f"{quoted(plan.place('options', name))}: `{target.name}` has no `{name}`: {reason}",
                hint=f"leave `{name}` out of the plan's options, or take a preset without it, or choose another target",
            )


def _check_nncf(plan: Plan, names: Sequence[str]) -> None:
    if plan.nncf is None or any(matches(name, (plan.nncf.components,)) for name in names):
        return
    raise InvalidPlan(
        f"{quoted(plan.place('nncf', 'components'))}: {quoted(plan.nncf.components)} matches no "
        "component of the pipeline",
        hint=f"its components with weights are {', '.join(names) or 'none'}",
    )


def _refusal(resolution: Resolution, target: PlanTarget) -> Refusal:
    stored = " or ".join(target.storage_dtypes)
    reason = target.refused.get(resolution.asked, f"the target stores weights as {stored}")
    words = f"weights in {resolution.asked} ({resolution.rule}): {reason}"
    return Refusal(resolution.component, words)


def _site_refusal(resolution: SiteResolution) -> Refusal:
    component, _, method = resolution.where.partition(".")
    graph = component if method == "forward" else resolution.where
    return Refusal(f"{graph}.{resolution.key}", resolution.why)


def _why(stored: str, computed: str, *, default: bool) -> str:
    first = "no rule matches, so float32 stays" if default else "stored as asked"
    if stored == computed:
        return f"{first}; computed in {computed}"
    return f"{first}; converted to {computed} when loaded, and computed so"
