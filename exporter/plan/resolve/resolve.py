"""From intent to resolution: what a plan means for one pipeline on one target."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from qdx.exporter.errors import InvalidPlan, Refusal, TargetRefusal, quoted
from qdx.exporter.graph.ir.kind import Kind
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
from qdx.exporter.plan.resolve.settle import Chosen, settled_gates, settled_mixed_precision
from qdx.exporter.plan.resolve.tuned import with_tuning
from qdx.exporter.plan.schema.load import list_presets, load_plan
from qdx.exporter.plan.schema.plan import Plan
from qdx.exporter.plan.schema.rule import matches
from qdx.exporter.plan.schema.scheme import FLOAT
from qdx.exporter.plan.schema.selection import Decision, decide, name_of, storage_rule

__all__ = ["Examination", "examine", "resolve"]

_NO_KINDS: Final[Mapping[str, Kind]] = MappingProxyType({})
_WIDER: Final = ("float32", "bfloat16")
"""What holds values that overflow float16; the first that a target stores is taken."""
_OVERFLOWS: Final = "its configuration has `force_upcast`, so float16 overflows in it; a rule that selects it decides otherwise"


@dataclass(frozen=True)
class Examination:
    """A resolution in which the target may have refused things.

    Attributes:
        resolved: What becomes of each component and site; refused sites have form `refused`, refused
            components the type that was asked.
        refusals: Each thing refused, components first, then sites in graph order.
        way_out: What to do about them.
        fitting: Finds the presets of which the target refuses nothing.
    """

    resolved: ResolvedPlan
    refusals: tuple[Refusal, ...]
    way_out: str
    fitting: Callable[[], Sequence[str]] = field(default=tuple, compare=False, repr=False)

    def check(self) -> ResolvedPlan:
        """Returns the resolution.

        Raises:
            TargetRefusal: Something was refused.
        """
        if self.refusals:
            raise TargetRefusal(self.summary, refusals=self.refusals, hint=self.hint)
        return self.resolved

    @property
    def hint(self) -> str:
        """The way out, with the presets that fit."""
        names = ", ".join(quoted(name) for name in self.fitting())
        return f"presets that fit are {names}; {self.way_out}" if names else self.way_out

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
    kinds: Mapping[str, Kind] = _NO_KINDS,
    *,
    upcast: Collection[str] = (),
) -> ResolvedPlan:
    """Decides for each component and each site which rule holds and what the target makes of it.

    What the plan leaves unsaid the target chooses: the float type of a component that no rule matches, and
    values of schemes. A site that no rule matches is stored as its component is.

    Args:
        plan: The intent.
        components: Names of all components of the pipeline that carry weights, also of those that
            will not be exported: a rule for one of these is not a mistake.
        target: The target.
        sites: Sites of each traced graph by `component.method`. None where nothing was traced: rules
            that speak of single operations are then read and decide nothing.
        kinds: What components do, by name, as `capture` found it; those of others are not known.
        upcast: Components whose configuration says that float16 overflows in them. They are float32 where the plan
            says nothing else of them in particular.

    Raises:
        InvalidPlan: A rule matches nothing, or later rules take all that it matches.
        TargetRefusal: The target cannot do something that the plan asks; names all of it.
    """
    return examine(plan, components, target, sites, kinds, upcast=upcast).check()


def examine(
    plan: Plan,
    components: Iterable[str],
    target: PlanTarget,
    sites: Mapping[str, Sequence[Site]] | None = None,
    kinds: Mapping[str, Kind] = _NO_KINDS,
    *,
    upcast: Collection[str] = (),
) -> Examination:
    """Resolves like `resolve`, and returns what the target refuses instead of raising it.

    Raises:
        InvalidPlan: As `resolve`.
        TargetRefusal: The target's artifacts cannot be made by the plan's quantizer, or with one of its options.
    """
    known = {name: kinds.get(name) for name in components}
    request = _Request(known, target, sites, frozenset(upcast))
    examination = _examined(plan, request)
    if not examination.refusals or sites is None:
        return examination

    def fitting() -> list[str]:
        return [name for name in list_presets() if _fits(name, request)]

    return replace(examination, fitting=fitting)


@dataclass(frozen=True)
class _Request:
    """A pipeline and a target.

    Attributes:
        components: The names of its components with weights, and what each does; None where that is not known.
        target: The target.
        sites: As for `resolve`.
        upcast: Likewise.
    """

    components: Mapping[str, Kind | None]
    target: PlanTarget
    sites: Mapping[str, Sequence[Site]] | None
    upcast: frozenset[str] = frozenset()


def _fits(preset: str, request: _Request) -> bool:
    """Whether a preset quantizes something here, and nothing that the target refuses."""
    try:
        examination = _examined(load_plan(preset), request)
    except (InvalidPlan, TargetRefusal):
        return False  # a rule of its own matches nothing here, or the target has not one of its options
    resolved = examination.resolved
    return not examination.refusals and any(map(resolved.quantized, resolved.sites))


def _examined(plan: Plan, request: _Request) -> Examination:
    components, target, sites = request.components, request.target, request.sites
    _check_quantizer(plan, target)
    _check_options(plan, target)
    storage = {name: storage_rule(plan, name, kind) for name, kind in components.items()}
    traced = {where: where.partition(".")[0] for where in sites or {}}
    decisions = {
        where: decide(plan, traced[where], graph, components.get(traced[where]))
        for where, graph in (sites or {}).items()
    }
    pairs = [(traced[where], site) for where, graph in (sites or {}).items() for site in graph]
    decided: dict[tuple[str, str], set[int]] = {}
    for where, graph in (sites or {}).items():
        for site, decision in zip(graph, decisions[where], strict=True):
            decided.setdefault((traced[where], site.key), set()).update(decision.rules)
    check_reach(plan, components, None if sites is None else pairs, storage, decided)
    _check_nncf(plan, tuple(components))
    mixed = settled_mixed_precision(plan, target)
    gates, bounds = settled_gates(plan, target)
    resolutions = tuple(
        _component(
            plan, name, index, target, mixed=bool(mixed.value), upcast=name in request.upcast
        )
        for name, index in storage.items()
    )
    becomes = {resolution.component: resolution.becomes for resolution in resolutions}
    resolved_sites: Mapping[str, tuple[SiteResolution, ...]] = {
        where: _graph(
            GraphRequest(plan, where, becomes[traced[where]], bool(mixed.value), target),
            graph,
            decisions[where],
        )
        for where, graph in (sites or {}).items()
    }
    resolved_sites, tuned = with_tuning(plan, resolved_sites, components)
    chosen = (*_chosen_floats(resolutions, target), mixed, *bounds)
    resolved = ResolvedPlan(
        plan, target.name, resolutions, gates, bool(mixed.value), chosen, resolved_sites, tuned
    )
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
        if resolution.becomes not in target.storage_dtypes
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
        f"{_floats_of(resolved, refused)}; `qdx targets {target.name}` lists what runs in low precision"
    )
    return Examination(resolved, (*components, *map(_site_refusal, refused)), hint)


def _floats_of(resolved: ResolvedPlan, refused: Iterable[SiteResolution]) -> str:
    """What keeps these sites float: the types of their components, because a component has one."""
    owners = [resolution.where.partition(".")[0] for resolution in refused]
    dtypes = dict.fromkeys(resolved.storage_dtype(owner) for owner in owners)
    return " or ".join(f'`"keep": "{dtype}"`' for dtype in dtypes)


def _component(
    plan: Plan, name: str, index: int | None, target: PlanTarget, *, mixed: bool, upcast: bool
) -> Resolution:
    rule = None if index is None else plan.rules[index].asked_weights
    asked = FLOAT if rule is None else rule.dtype
    choice = target.choices.float_dtype
    stored = choice.value if asked == FLOAT else asked
    first = f"chosen by {target.name}: {choice.why}" if asked == FLOAT else "stored as asked"
    meant = index is not None and asked != FLOAT and not plan.rules[index].select.everything
    if upcast and computed_in(target, stored) == "float16" and not meant:
        wider = _wider(target)
        if wider is not None:
            first = f"{wider} instead of {stored}: {_OVERFLOWS}"
            stored = wider
    computed = computed_in(target, stored)
    why = _why(first, stored, computed)
    if mixed and computed != "float32":
        why += ", but float32 between products"
    return Resolution(name, asked, name_of(plan, index), stored, computed, why)


def _wider(target: PlanTarget) -> str | None:
    """A type that a target stores and computes in, and that holds what float16 does not; None where it has none."""
    stored = (dtype for dtype in _WIDER if dtype in target.storage_dtypes)
    return next((dtype for dtype in stored if computed_in(target, dtype) != "float16"), None)


def _chosen_floats(resolutions: Iterable[Resolution], target: PlanTarget) -> tuple[Chosen, ...]:
    """The float types of components, and who chose them."""
    choice = target.choices.float_dtype
    found = set()
    for one in resolutions:
        wanted = choice.value if one.asked == FLOAT else one.asked
        if one.becomes != wanted:
            found.add((one.becomes, target.name, _OVERFLOWS))
        elif one.asked == FLOAT:
            found.add((one.becomes, target.name, choice.why))
        else:
            found.add((one.becomes, one.rule, ""))
    return tuple(Chosen("float", *each) for each in sorted(found))


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
        if getattr(plan.options, name):
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
    reason = target.refused.get(resolution.becomes, f"the target stores weights as {stored}")
    words = f"weights in {resolution.becomes} ({resolution.rule}): {reason}"
    return Refusal(resolution.component, words)


def _site_refusal(resolution: SiteResolution) -> Refusal:
    component, _, method = resolution.where.partition(".")
    graph = component if method == "forward" else resolution.where
    return Refusal(f"{graph}.{resolution.key}", resolution.why)


def _why(first: str, stored: str, computed: str) -> str:
    if stored == computed:
        return f"{first}; computed in {computed}"
    return f"{first}; converted to {computed} when loaded, and computed so"
