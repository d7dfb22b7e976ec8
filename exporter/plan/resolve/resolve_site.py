"""What becomes of one site: the schemes that were asked, and what the target makes of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final

from qdx.exporter.graph.ir.site import ATTENTION_PRODUCTS, Site
from qdx.exporter.plan.resolve.faster import (
    attention_of,
    inputs_only_where_faster,
    weights_only_where_faster,
)
from qdx.exporter.plan.resolve.feasibility import PlanTarget
from qdx.exporter.plan.resolve.negotiate import Negotiation, Outcome, Wish
from qdx.exporter.plan.resolve.resolution import InputsByTimestep, SiteResolution
from qdx.exporter.plan.schema.plan import Plan
from qdx.exporter.plan.schema.scheme import Inputs, Weights
from qdx.exporter.plan.schema.selection import Decision, name_of

__all__ = [
    "GraphRequest",
    "resolve_site",
    "with_met_products",
    "with_shared_weights",
    "with_whole_attention",
]

_FLOAT8: Final = "float8_e4m3fn"


@dataclass(frozen=True)
class GraphRequest:
    """What the sites of one graph have in common.

    Attributes:
        plan: The intent.
        where: `component.method` of the graph.
        storage: Type in which its component stores what is not quantized.
        target: The target.
    """

    plan: Plan
    where: str
    storage: str
    target: PlanTarget


def resolve_site(
    request: GraphRequest, site: Site, decision: Decision, macs: int
) -> SiteResolution:
    """Resolves one site.

    Args:
        request: What holds for its graph.
        site: The operation.
        decision: The rules that decide for it.
        macs: Multiply-accumulates by which the target judges what is faster; see `compared_macs`.
    """
    plan = request.plan
    wish = _wish(plan, site, decision, request.storage)
    mixed = plan.options.mixed_precision
    negotiation = Negotiation(site, request.storage, request.target, macs, mixed)
    outcome = negotiation.outcome(wish)
    if outcome.offer.slower is not None:
        outcome = _where_faster(plan, decision, wish, negotiation, outcome)
    weights, offer = outcome.weights, outcome.offer
    return SiteResolution(
        where=request.where,
        site=site,
        asked_weights=wish.weights,
        asked_inputs=wish.schemes[0] if wish.schemes else None,
        weights_rule="" if weights is None else name_of(plan, decision.weights),
        inputs_rule=", ".join(dict.fromkeys(name_of(plan, n) for n in decision.inputs)),
        weights=weights,
        inputs=outcome.inputs,
        stored_dtype="" if weights is None else offer.stored or weights.dtype,
        scale_dtype=request.storage if offer.scales == "storage" else offer.scales,
        form=offer.form,
        why=offer.why,
    )


def with_shared_weights(resolutions: Iterable[SiteResolution]) -> tuple[SiteResolution, ...]:
    """Refuses sites of one graph that share a weight and were asked to store it differently."""
    sites = tuple(resolutions)
    first: dict[str, SiteResolution] = {}
    checked = []
    for resolution in sites:
        weight = resolution.site.weight
        other = first.setdefault(weight, resolution) if weight is not None else resolution
        if other.weights != resolution.weights:
            why = f"shares its weight with {other.key}, for which {other.weights_rule} asks another scheme"
            resolution = replace(resolution, form="refused", why=why)  # noqa: PLW2901
        checked.append(resolution)
    return tuple(checked)


def with_whole_attention(resolutions: Iterable[SiteResolution]) -> tuple[SiteResolution, ...]:
    """Refuses a product of attention in 8-bit floats whose other product is not: kernels have both, or neither."""
    sites = tuple(resolutions)
    narrow = [r for r in sites if r.site.is_attention_product and _in_float8(r)]
    products = Counter(attention_of(resolution.site) for resolution in narrow)
    alone = {id(r) for r in narrow if products[attention_of(r.site)] < len(ATTENTION_PRODUCTS)}
    why = "the other product of its attention is not in 8-bit floats: there is one kernel for both"
    return tuple(replace(r, form="refused", why=why) if id(r) in alone else r for r in sites)


def with_met_products(resolutions: Iterable[SiteResolution]) -> tuple[SiteResolution, ...]:
    """Refuses a quantized skip beside a product whose inputs are not quantized alike: that product's kernel adds it."""
    sites = tuple(resolutions)
    dtypes = {r.site.node: _inputs_dtypes(r) for r in sites}

    def checked(one: SiteResolution) -> SiteResolution:
        wanted = _inputs_dtypes(one)
        alike = not wanted or dtypes.get(one.site.product) == wanted
        if alike or not one.site.is_residual or one.form == "refused":
            return one
        why = f"the product that it is added to is not one of {'/'.join(sorted(wanted))}, and its kernel does the addition"
        return replace(one, form="refused", why=why)

    return tuple(map(checked, sites))


def _inputs_dtypes(resolution: SiteResolution) -> set[str]:
    return {inputs.dtype for _, inputs in resolution.segments}


def _in_float8(resolution: SiteResolution) -> bool:
    return any(inputs.dtype == _FLOAT8 for _, inputs in resolution.segments)


def _where_faster(
    plan: Plan, decision: Decision, wish: Wish, negotiation: Negotiation, outcome: Outcome
) -> Outcome:
    """Leaves float what rules ask only where it is faster, with the reason."""
    weights, schemes, inputs = wish.weights, wish.schemes, wish.inputs
    if weights is not None and weights_only_where_faster(plan, decision):
        weights = _float_weights(negotiation.storage)
    if inputs is not None and inputs_only_where_faster(plan, decision):
        schemes, inputs = tuple(Inputs(dtype="float32") for _ in schemes), None
    changed = Wish(weights, schemes, inputs)
    if changed == wish:
        return outcome
    kept = negotiation.outcome(changed)
    why = f"{kept.offer.why}; low precision is no faster: {outcome.offer.slower}"
    return replace(kept, offer=replace(kept.offer, why=why))


def _wish(plan: Plan, site: Site, decision: Decision, storage: str) -> Wish:
    schemes = tuple(_inputs(plan, index) for index in decision.inputs)
    weights = _weights(plan, site, decision, storage)
    return Wish(weights, schemes, _by_timestep(decision, schemes))


def _weights(plan: Plan, site: Site, decision: Decision, storage: str) -> Weights | None:
    if site.weight is None:
        return None
    rule = None if decision.weights is None else plan.rules[decision.weights]
    asked = None if rule is None else rule.asked_weights
    # Float storage is one type for each component.
    return asked or _float_weights(storage)


def _float_weights(dtype: str) -> Weights:
    return Weights.model_validate({"dtype": dtype})


def _inputs(plan: Plan, index: int | None) -> Inputs:
    asked = None if index is None else plan.rules[index].asked_inputs
    return asked or Inputs(dtype="float32")


def _by_timestep(decision: Decision, schemes: Sequence[Inputs]) -> Inputs | InputsByTimestep | None:
    """The schemes of the inputs; by ranges of timestep groups where there is more than one range."""
    if not any(scheme.quantized for scheme in schemes):
        return None
    count = len(schemes)
    # Groups belong together where one rule decides, in one of the parts that it asks for.
    labels = [
        (index, group * scheme.timestep_groups // count)
        for group, (index, scheme) in enumerate(zip(decision.inputs, schemes, strict=True))
    ]
    runs = [
        tuple(group for group, _ in run) for _, run in groupby(enumerate(labels), lambda x: x[1])
    ]
    if len(runs) == 1:
        return schemes[0]
    return tuple((range(run[0], run[-1] + 1), schemes[run[0]]) for run in runs)
