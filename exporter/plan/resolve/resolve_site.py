"""What becomes of one site: the schemes that were asked, and what the target makes of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from math import prod
from typing import Final

from qdx.exporter.formats.rounding import ROUNDINGS
from qdx.exporter.graph.ir.site import ATTENTION_PRODUCTS, Site
from qdx.exporter.plan.resolve.faster import attention_of
from qdx.exporter.plan.resolve.feasibility import PlanTarget
from qdx.exporter.plan.resolve.negotiate import Negotiation, Outcome, Wish
from qdx.exporter.plan.resolve.resolution import InputsByTimestep, SiteResolution
from qdx.exporter.plan.resolve.settle import (
    Chosen,
    Operation,
    Settled,
    settled_inputs,
    settled_weights,
)
from qdx.exporter.plan.schema.plan import Plan
from qdx.exporter.plan.schema.scheme import (
    LOW_RANK_OPERATIONS,
    ROTATED_OPERATIONS,
    AskedInputs,
    AskedWeights,
    Inputs,
    Weights,
)
from qdx.exporter.plan.schema.selection import Decision, name_of

__all__ = [
    "GraphRequest",
    "resolve_site",
    "with_met_products",
    "with_shared_weights",
    "with_whole_attention",
]

_FLOAT8: Final = "float8_e4m3fn"
_FLOAT_INPUTS: Final = Inputs(dtype="float32")


@dataclass(frozen=True)
class GraphRequest:
    """What the sites of one graph have in common.

    Attributes:
        plan: The intent.
        where: `component.method` of the graph.
        storage: Type in which its component stores what is not quantized.
        mixed: Whether of what computes in sixteen bits only products do.
        target: The target.
    """

    plan: Plan
    where: str
    storage: str
    mixed: bool
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
    plan, target = request.plan, request.target
    asked_inputs = _asked_inputs(plan, decision.inputs[0]) if decision.inputs else None
    fed = "float32" if asked_inputs is None else asked_inputs.dtype
    operation = Operation(site.op, request.storage, fed, _channels(site))
    weights = _settled_weights(request, site, decision, operation)
    by_timestep = any(_depends_on_timestep(plan, index) for index in decision.inputs)
    inputs = tuple(
        _settled_inputs(request, index, operation, by_timestep=by_timestep)
        for index in decision.inputs
    )
    wish = _wish(decision, weights, inputs)
    negotiation = Negotiation(site, request.storage, target, macs, request.mixed)
    outcome = negotiation.outcome(wish)
    if outcome.offer.slower is not None:
        outcome = _where_faster(wish, negotiation, outcome)
    stored, offer = outcome.weights, outcome.offer
    why = "; ".join([offer.why, *_unwanted(inputs)])
    unmet = None if stored is None or not stored.quantized else _unmet(stored, site)
    return SiteResolution(
        where=request.where,
        site=site,
        asked_weights=_asked_weights(request, site, decision),
        asked_inputs=asked_inputs,
        weights_rule="" if stored is None else name_of(plan, decision.weights),
        inputs_rule=", ".join(dict.fromkeys(name_of(plan, n) for n in decision.inputs)),
        weights=stored,
        inputs=outcome.inputs,
        stored_dtype="" if stored is None else offer.stored or stored.dtype,
        scale_dtype=request.storage if offer.scales == "storage" else offer.scales,
        form=offer.form if unmet is None else "refused",
        why=unmet or why,
        chosen=tuple(dict.fromkeys(_chosen(weights, inputs))),
        inputs_rules=_rules_of(plan, decision.inputs),
        float_dtype=request.storage,
    )


def _unmet(weights: Weights, site: Site) -> str | None:
    """Why a rounding, a low-rank branch or a rotation does not serve an operation; None where they do."""
    return _unlearned(weights, site) or _without_branch(weights, site) or _unrotated(weights, site)


def _without_branch(weights: Weights, site: Site) -> str | None:
    """Why no low-rank branch can stand beside an operation; None where it can, or none is asked."""
    if weights.low_rank is None:
        return None
    if site.op not in LOW_RANK_OPERATIONS:
        return f"a low-rank branch stands beside {', '.join(LOW_RANK_OPERATIONS)} alone; leave `low_rank` out for {site.op}"
    rows, columns = site.weight_shape[0], prod(site.weight_shape[1:])
    if weights.low_rank.rank > min(rows, columns):
        return f"a low-rank branch of rank {weights.low_rank.rank} beside a matrix of {rows} x {columns}; its rank is at most {min(rows, columns)}"
    return None


def _unrotated(weights: Weights, site: Site) -> str | None:
    """Why what an operation reads cannot be rotated; None where it can, or no rotation is asked."""
    if weights.rotate is None:
        return None
    if site.op not in ROTATED_OPERATIONS:
        return f"a rotation stands in front of {', '.join(ROTATED_OPERATIONS)} alone; leave `rotate` out for {site.op}"
    channels, block = _channels(site), weights.rotate.block
    largest = channels & -channels
    if block is None:
        return f"a rotation of {channels} channels: the largest power of two that divides them is {largest}; leave `rotate` out"
    if channels % block:
        return f"a rotation in blocks of {block} does not divide {channels} channels; the largest block that does is {largest}"
    return None


def _channels(site: Site) -> int:
    """Channels that each output reads: of a convolution those of a group."""
    return site.weight_shape[1] if len(site.weight_shape) > 1 else 0


def _unlearned(weights: Weights, site: Site) -> str | None:
    """Why a rounding does not serve an operation; None where it does."""
    operations = ROUNDINGS[weights.rounding].operations
    if not operations or site.op in operations:
        return None
    return f"rounding {weights.rounding} learns weights of {', '.join(operations)} alone; ask `nearest` for {site.op}"


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


def _where_faster(wish: Wish, negotiation: Negotiation, outcome: Outcome) -> Outcome:
    """Leaves float what is asked only where it is faster, with the reason."""
    weights, schemes, inputs = wish.weights, wish.schemes, wish.inputs
    if weights is not None and wish.weights_if_faster:
        weights = Weights.model_validate({"dtype": negotiation.storage})
    if inputs is not None and wish.inputs_if_faster:
        schemes, inputs = tuple(_FLOAT_INPUTS for _ in schemes), None
    changed = replace(wish, weights=weights, schemes=schemes, inputs=inputs)
    if changed == wish:
        return outcome
    kept = negotiation.outcome(changed)
    why = f"{kept.offer.why}; low precision is no faster: {outcome.offer.slower}"
    return replace(kept, offer=replace(kept.offer, why=why))


def _wish(
    decision: Decision, weights: Settled[Weights] | None, inputs: Sequence[Settled[Inputs]]
) -> Wish:
    schemes = tuple(_FLOAT_INPUTS if one.when == "never" else one.scheme for one in inputs)
    return Wish(
        None if weights is None else weights.scheme,
        schemes,
        _by_timestep(decision, schemes),
        weights_if_faster=weights is not None and weights.when == "faster",
        # With several rules for several timesteps, all of them must say so.
        inputs_if_faster=bool(inputs) and all(one.when == "faster" for one in inputs),
        any_granularity=weights is not None and weights.left_to_target("weights.granularity"),
    )


def _asked_weights(request: GraphRequest, site: Site, decision: Decision) -> AskedWeights | None:
    if site.weight is None:
        return None
    rule = None if decision.weights is None else request.plan.rules[decision.weights]
    asked = None if rule is None else rule.asked_weights
    # Float storage is one type for each component.
    return asked or AskedWeights.model_validate({"dtype": request.storage})


def _settled_weights(
    request: GraphRequest, site: Site, decision: Decision, operation: Operation
) -> Settled[Weights] | None:
    asked = _asked_weights(request, site, decision)
    if asked is None:
        return None
    if decision.weights is None:
        return Settled(Weights.model_validate({"dtype": request.storage}))
    rule, by = request.plan.rules[decision.weights], name_of(request.plan, decision.weights)
    return settled_weights(asked, rule, by, operation, request.target)


def _asked_inputs(plan: Plan, index: int | None) -> AskedInputs:
    asked = None if index is None else plan.rules[index].asked_inputs
    return asked or AskedInputs(dtype="float32")


def _settled_inputs(
    request: GraphRequest, index: int | None, operation: Operation, *, by_timestep: bool
) -> Settled[Inputs]:
    if index is None:
        return Settled(_FLOAT_INPUTS)
    plan = request.plan
    asked, by = _asked_inputs(plan, index), name_of(plan, index)
    rule = plan.rules[index]
    return settled_inputs(asked, rule, by, operation, request.target, by_timestep=by_timestep)


def _depends_on_timestep(plan: Plan, index: int | None) -> bool:
    """Whether a rule gives inputs scales by timestep."""
    if index is None:
        return False
    rule = plan.rules[index]
    return rule.select.timesteps is not None or _asked_inputs(plan, index).timestep_groups > 1


def _unwanted(inputs: Sequence[Settled[Inputs]]) -> Iterator[str]:
    """Why inputs stay float that a rule asks to be quantized and the target never does unless it is told to."""
    for one in inputs[:1]:
        if one.when == "never":
            yield next(
                f"{each.by} leaves it float: {each.why}"
                for each in one.chosen
                if each.value == "never"
            )


def _chosen(
    weights: Settled[Weights] | None, inputs: Sequence[Settled[Inputs]]
) -> Iterator[Chosen]:
    if weights is not None:
        yield from weights.chosen
    for one in inputs:
        yield from one.chosen


def _rules_of(plan: Plan, indices: Sequence[int | None]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """The rules that decide for some groups of timesteps, in the plan's order, each with its groups."""
    groups: dict[int, list[int]] = {}
    for group, index in enumerate(indices):
        groups.setdefault(-1 if index is None else index, []).append(group)
    return tuple(
        (name_of(plan, None if index < 0 else index), tuple(groups[index]))
        for index in sorted(groups)
    )


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
