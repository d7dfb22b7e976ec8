"""What becomes of one site: the schemes that were asked, and what the target makes of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import groupby
from typing import Final

from qdx.exporter.graph.site import Site
from qdx.exporter.plan.feasibility import Offer, PlanTarget, Request
from qdx.exporter.plan.resolution import InputsByTimestep, SiteResolution
from qdx.exporter.plan.schema import Plan
from qdx.exporter.plan.scheme import Inputs, Weights
from qdx.exporter.plan.selection import Decision, name_of

__all__ = ["resolve_site", "with_shared_weights"]

_MATRIX_RANK: Final = 2
_LEAST_BLOCK: Final = 16
# Where the schemes of several timesteps are carried out differently, the last of these counts.
_BY_WORTH: Final = ("native", "decomposed", "stored", "simulated", "refused")


def resolve_site(
    plan: Plan, where: str, site: Site, decision: Decision, storage: str, target: PlanTarget
) -> SiteResolution:
    """Resolves one site.

    Args:
        plan: The intent.
        where: `component.method` of the graph.
        site: The operation.
        decision: The rules that decide for it.
        storage: Type in which its component stores what is not quantized.
        target: The target.
    """
    asked = _weights(plan, site, decision, storage)
    schemes = tuple(_inputs(plan, index) for index in decision.inputs)
    inputs = _by_timestep(decision, schemes)
    fixed = _conflict(asked, schemes, storage) or _float(asked, inputs, target)
    weights, offer = (asked, fixed) if fixed else _negotiate(site, asked, inputs, target)
    return SiteResolution(
        where=where,
        site=site,
        asked_weights=asked,
        asked_inputs=schemes[0] if schemes else None,
        weights_rule="" if weights is None else name_of(plan, decision.weights),
        inputs_rule=", ".join(dict.fromkeys(name_of(plan, n) for n in decision.inputs)),
        weights=weights,
        inputs=inputs,
        stored_dtype="" if weights is None else offer.stored or weights.dtype,
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


def _weights(plan: Plan, site: Site, decision: Decision, storage: str) -> Weights | None:
    if site.weight is None:
        return None
    rule = None if decision.weights is None else plan.rules[decision.weights]
    asked = None if rule is None else rule.asked_weights
    # Float storage is one type for each component.
    return asked or Weights.model_validate({"dtype": storage})


def _reduced(site: Site) -> int:
    """Size of the dimension that the operation reduces and blocks divide."""
    return site.weight_shape[1] if len(site.weight_shape) > 1 else 0


def _inputs(plan: Plan, index: int | None) -> Inputs:
    asked = None if index is None else plan.rules[index].asked_inputs
    return asked or Inputs(dtype="float32")


def _by_timestep(
    decision: Decision, schemes: tuple[Inputs, ...]
) -> Inputs | InputsByTimestep | None:
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


def _conflict(weights: Weights | None, schemes: tuple[Inputs, ...], storage: str) -> Offer | None:
    """What no target could do."""
    if weights is not None and not weights.quantized and weights.dtype != storage:
        return Offer(
            "refused",
            f"weights in {weights.dtype} in a component that stores its float weights as {storage}: "
            "float weights of a component have one type",
        )
    kinds = {
        (scheme.quantized, scheme.dtype.startswith("u"), scheme.mode, scheme.symmetric)
        for scheme in schemes
    }
    if len(kinds) > 1:
        return Offer(
            "refused",
            "its inputs change at some timesteps between float, signed, unsigned, asymmetric or "
            "dynamic: one graph has one kind of quantizer",
        )
    return None


def _float(
    weights: Weights | None, inputs: Inputs | InputsByTimestep | None, target: PlanTarget
) -> Offer | None:
    """What becomes of a site where nothing is quantized."""
    if inputs is not None or (weights is not None and weights.quantized):
        return None
    computed = f"computed in {target.compute_dtype}"
    if weights is None:
        return Offer("float", computed)
    return Offer("float", f"stored in {weights.dtype}; {computed}")


def _negotiate(
    site: Site,
    asked: Weights | None,
    inputs: Inputs | InputsByTimestep | None,
    target: PlanTarget,
) -> tuple[Weights | None, Offer]:
    """The scheme of the weight that the target can carry out, and what it makes of it.

    A block as long as a channel is a channel. Where a target wants whole blocks and they do not
    divide a channel, they are halved until they do: shorter blocks are never less exact.
    """
    reduced = _reduced(site)
    if asked is None or asked.block is None or len(site.weight_shape) != _MATRIX_RANK:
        return asked, _offer(site, asked, inputs, target)
    if asked.block >= reduced:
        weights = asked.model_copy(update={"granularity": "channel", "block": None})
        return weights, _because(_offer(site, weights, inputs, target), "one block holds a channel")
    first = offer = _offer(site, asked, inputs, target)
    block: int = asked.block
    while offer.form == "refused" and reduced % block and block > _LEAST_BLOCK:
        block //= 2
        weights = asked.model_copy(update={"block": block})
        offer = _offer(site, weights, inputs, target)
    if offer is first or offer.form == "refused":
        return asked, first
    reason = f"blocks of {block}, because {asked.block} does not divide its {reduced} inputs"
    return weights, _because(offer, reason)


def _because(offer: Offer, reason: str) -> Offer:
    return replace(offer, why=f"{offer.why}; {reason}")


def _offer(
    site: Site,
    weights: Weights | None,
    inputs: Inputs | InputsByTimestep | None,
    target: PlanTarget,
) -> Offer:
    schemes = inputs if isinstance(inputs, tuple) else ((range(0), inputs),)
    requests = [
        Request(site.op, weights, scheme, isinstance(inputs, tuple), _reduced(site))
        for _, scheme in schemes
    ]
    offers = [(target.offer(request), request) for request in requests]
    offer, request = max(offers, key=lambda pair: _BY_WORTH.index(pair[0].form))
    if offer.form == "refused":
        return replace(offer, why=f"{request}: {offer.why}")
    return offer
