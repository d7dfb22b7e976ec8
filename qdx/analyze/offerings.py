"""What a target makes of each option, operation by operation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from qdx.analyze.analysis import FLOAT_OPTION, Option
from qdx.exporter.errors import InvalidPlan, TargetRefusal
from qdx.exporter.plan.resolve.faster import compared_macs
from qdx.exporter.plan.resolve.feasibility import Offer, PlanTarget, Request
from qdx.exporter.plan.resolve.negotiate import Negotiation, Wish
from qdx.exporter.plan.resolve.resolve import examine
from qdx.exporter.plan.schema.plan import Plan
from qdx.exporter.plan.schema.rule import Rule, Select
from qdx.exporter.plan.schema.scheme import Inputs, Weights
from qdx.exporter.transforms.low_rank import Branchable

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.site import Site
    from qdx.exporter.plan.resolve.resolution import ResolvedPlan, SiteResolution
    from qdx.exporter.plan.schema.choices import Choices
    from qdx.source.pipeline import TracedPipeline
    from qdx.source.planned import PlannedGraphs
    from qdx.targets.profile import TargetProfile

__all__ = [
    "Offering",
    "SiteOffer",
    "offering",
    "offerings",
    "plan_asking",
]

_OFFERED: Final = frozenset({"native", "decomposed", "stored"})
"""What a target carries out; the values of what it simulates it would compute in a wider type."""


@dataclass(frozen=True)
class SiteOffer:
    """What a target makes of an option of one operation.

    Attributes:
        resolution: What becomes of the operation.
        slower: Why it is no faster than float; None where it is, or where nobody says so.
    """

    resolution: SiteResolution
    slower: str | None

    @property
    def scheme(self) -> tuple[object, object]:
        """What is really carried out, by which options that come to the same are told."""
        return self.resolution.weights, self.resolution.inputs


@dataclass(frozen=True)
class Offering:
    """An option and all operations that can take it.

    Attributes:
        option: The option.
        plan: Asks it of every operation.
        resolved: What becomes of that where all operations stay float that cannot take it.
        sites: By graph and key, those that can.
        floats: By graph, every operation as it is where it stays float.
    """

    option: Option
    plan: Plan
    resolved: ResolvedPlan
    sites: Mapping[tuple[str, str], SiteOffer]
    floats: Mapping[str, Sequence[SiteResolution]] = field(repr=False)


def offerings(
    source: TracedPipeline,
    planned: PlannedGraphs,
    profile: TargetProfile,
    options: Iterable[Option],
    wheres: Sequence[str],
) -> tuple[Offering, ...]:
    """What the target offers the operations of some graphs, without options that nothing can take.

    Args:
        source: The pipeline.
        planned: Its graphs, and the plan upon which options are asked.
        profile: The target.
        options: Without float.
        wheres: The graphs, by `component.method`.

    Returns:
        With options numbered from 1 on.
    """
    found: list[Offering] = []
    seen: dict[tuple[str, str], list[tuple[object, object]]] = {}
    for option in options:
        one = offering(source, planned, profile, option, wheres)
        if one is None:
            continue
        fresh = {}
        for place, offer in one.sites.items():
            schemes = seen.setdefault(place, [])
            if offer.scheme not in schemes:
                schemes.append(offer.scheme)
                fresh[place] = offer
        if fresh:
            numbered = option.model_copy(update={"id": FLOAT_OPTION + 1 + len(found)})
            resolved = _only(one.resolved, fresh)
            found.append(replace(one, option=numbered, resolved=resolved, sites=fresh))
    return tuple(found)


def plan_asking(
    base: Plan,
    option: Option,
    components: Iterable[str],
    ops: Sequence[str],
    edges: Sequence[float] = (),
) -> Plan:
    """The plan that asks an option of all operations of some kinds.

    Args:
        base: Whose options, calibration and float types it has.
        option: What is asked.
        components: Of the operations.
        ops: Their kinds.
        edges: Fractions of the schedule, from 0 to 1, between which inputs have ranges of their own; none for one range.
    """
    components = tuple(components)
    floats = tuple(rule for rule in base.rules if rule.select.by_component and _keeps_float(rule))
    asking = Rule(
        id="option",
        select=Select(component=components, op=tuple(ops)),
        weights=option.weights,
        inputs=option.inputs,
        when="always",
    )
    timed = tuple(
        Rule(
            id=f"option.{number}",
            select=Select(component=components, op=tuple(ops), timesteps=span),
            inputs=option.inputs,
            when="always",
        )
        for number, span in enumerate(pairwise(edges))
    )
    return Plan(
        schema="qdx.plan/1",
        rules=(*floats, asking, *timed),
        options=base.options,
        calibration=base.calibration,
        gates=base.gates,
    )


def _keeps_float(rule: Rule) -> bool:
    asked = rule.asked_weights
    return asked is not None and not asked.quantized and not rule.quantizes


def offering(
    source: TracedPipeline,
    planned: PlannedGraphs,
    profile: TargetProfile,
    option: Option,
    wheres: Sequence[str],
    edges: Sequence[float] = (),
) -> Offering | None:
    """What the target makes of one option; None where no operation could take it on any target.

    Args:
        source: The pipeline.
        planned: Its graphs, and the plan upon which the option is asked.
        profile: The target.
        option: The option.
        wheres: The graphs, by `component.method`.
        edges: See `plan_asking`.
    """
    sites = {where: planned.sites[where] for where in wheres}
    able = {
        (where, site.key): site
        for where, found in sites.items()
        for site in found
        if _can_take(site, option)
    }
    if not able:
        return None
    components = dict.fromkeys(where.partition(".")[0] for where, _ in able)
    ops = dict.fromkeys(site.op for site in able.values())
    plan = plan_asking(planned.resolved.plan, option, components, list(ops), edges)
    target: PlanTarget = _Willing(profile) if option.simulated else profile
    try:
        resolved = examine(
            plan,
            source.skeleton.modules,
            target,
            planned.sites,
            source.captured.kinds,
            upcast=source.upcast,
        ).resolved
    except (InvalidPlan, TargetRefusal):
        return None  # it asks for nothing here
    forms = _OFFERED | {"simulated"} if option.simulated else _OFFERED
    offers = {
        (where, one.key): SiteOffer(one, _slower(one, resolved, target, sites[where]))
        for where in wheres
        for one in resolved.sites[where]
        if (where, one.key) in able and one.form in forms and _is_taken(one, option)
    }
    for place in _without_branch(planned, offers):
        del offers[place]
    floats = _only(resolved, {}).sites
    return Offering(option, plan, _only(resolved, offers), offers, floats)


def _without_branch(
    planned: PlannedGraphs, offers: Mapping[tuple[str, str], SiteOffer]
) -> list[tuple[str, str]]:
    """Operations for which a low-rank branch is asked and beside which their graph has no place for one."""
    asked: dict[tuple[str, str], list[Site]] = {}
    for (where, _), offer in offers.items():
        site, scheme = offer.resolution.site, offer.resolution.quantized_weights
        if scheme is not None and scheme.low_rank is not None and site.weight is not None:
            asked.setdefault((where, site.weight), []).append(site)
    can = {where: Branchable(planned.graphs[where]) for where, _ in asked}
    return [
        (where, site.key)
        for (where, _), sites in asked.items()
        if can[where].why_not(sites) is not None
        for site in sites
    ]


def _can_take(site: Site, option: Option) -> bool:
    """Whether an operation has what an option is about; residual additions follow the products that they meet."""
    if site.is_residual:
        return False
    weighted = site.weight is not None
    return weighted == (option.weights is not None) and (option.inputs is None or bool(site.ports))


def _is_taken(resolution: SiteResolution, option: Option) -> bool:
    """Whether all of an option was taken, and not a part of it."""
    weights = option.weights is None or resolution.quantized_weights is not None
    return weights and (option.inputs is None) == (not resolution.segments)


def _only(resolved: ResolvedPlan, taken: Mapping[tuple[str, str], SiteOffer]) -> ResolvedPlan:
    """A resolution in which all other operations stay float."""
    return replace(
        resolved,
        sites={
            where: tuple(
                one if (where, one.key) in taken else _as_float(one, resolved, where)
                for one in found
            )
            for where, found in resolved.sites.items()
        },
    )


def _as_float(one: SiteResolution, resolved: ResolvedPlan, where: str) -> SiteResolution:
    storage = resolved.storage_dtype(where.partition(".")[0])
    if one.weights is None:
        return replace(one, inputs=None, form="float")
    return replace(
        one, weights=Weights(dtype=storage), inputs=None, stored_dtype=storage, form="float"
    )


def _slower(
    one: SiteResolution, resolved: ResolvedPlan, target: PlanTarget, sites: Sequence[Site]
) -> str | None:
    """Why what was taken is no faster than float."""
    component = one.where.partition(".")[0]
    schemes = [scheme for _, scheme in one.segments] or [Inputs(dtype="float32")]
    negotiation = Negotiation(
        one.site,
        resolved.storage_dtype(component),
        target,
        compared_macs(sites)[one.key],
        resolved.mixed_precision,
    )
    return negotiation.outcome(Wish(one.weights, schemes, one.inputs)).offer.slower


@dataclass(frozen=True)
class _Willing:
    """A target that simulates weights that it does not store, of operations that it has in low precision at all.

    What it would do to the numbers can then be measured.
    """

    profile: TargetProfile

    @property
    def name(self) -> str:
        return self.profile.name

    @property
    def storage_dtypes(self) -> tuple[str, ...]:
        return self.profile.storage_dtypes

    @property
    def compute_dtype(self) -> str:
        return self.profile.compute_dtype

    @property
    def refused(self) -> Mapping[str, str]:
        return self.profile.refused

    @property
    def refused_options(self) -> Mapping[str, str]:
        return self.profile.refused_options

    @property
    def quantizers(self) -> tuple[str, ...]:
        return self.profile.quantizers

    @property
    def choices(self) -> Choices:
        return self.profile.choices

    def offer(self, request: Request) -> Offer:
        found = self.profile.offer(request)
        block = None if request.weights is None else request.weights.block
        known = any(request.op in kernel.op for kernel in self.profile.kernels)
        stored = request.inputs is None and not (block and request.reduced % block)
        if found.form != "refused" or not known or not stored:
            return found
        return Offer("simulated", f"no artifact: {found.why}")
