"""What an analysis leaves to choose: the problem of a search. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Final

from qdx.analyze.analysis import FLOAT_OPTION, Analysis, Group, Offered, Option
from qdx.exporter.dtypes import bits
from qdx.exporter.errors import UsageError
from qdx.search.problem import Choice, Part, Problem
from qdx.search.times import Times, times_of

__all__ = ["problem_of"]

_FLOAT_BITS: Final = 32


def problem_of(analysis: Analysis, *, options: Collection[int] | None = None) -> Problem:
    """Returns what an analysis leaves to choose.

    An option of a group whose noise was not measured is none: nothing is known of it.

    Args:
        analysis: Of the model on the target.
        options: Those that may be chosen; None allows every one that the target has, not what was simulated. Float
            always remains.

    Raises:
        UsageError: An option is none of the analysis.
    """
    known = {option.id for option in analysis.options}
    for option in sorted(set(options or ()) - known):
        raise UsageError(
            f"option {option}: the analysis has options 0 to {len(known) - 1}",
            hint="`qdx analyze` lists them",
        )
    allowed = None if options is None else {FLOAT_OPTION, *options}
    parts = tuple(_part(analysis, group, allowed) for group in analysis.groups)
    labels = tuple(option.label for option in analysis.options)
    times = None if analysis.latency is None else times_of(analysis)
    if times is None:
        return Problem(parts, labels, {})
    parts = tuple(_timed(part, times) for part in parts)
    fixed = {"latency_ms": times.rest_ms}
    return Problem(parts, labels, fixed, times.changes_ms, times.float_ms)


def _timed(part: Part, times: Times) -> Part:
    """With what its choices read, and what that takes beside operations that are always float."""
    choices = []
    for choice in part.choices:
        reads = times.reads[part.group][choice.option]
        costs = dict(choice.costs)
        if "latency_ms" in costs and reads != times.reads[part.group][FLOAT_OPTION]:
            costs["latency_ms"] += times.beside_float_ms.get(part.group, 0.0)
        choices.append(replace(choice, costs=costs, reads=reads))
    return replace(part, choices=tuple(choices))


def _part(analysis: Analysis, group: Group, allowed: Collection[int] | None) -> Part:
    if allowed is None:
        offers = [offer for offer in group.offers if offer.form != "simulated"]
    else:
        offers = [offer for offer in group.offers if offer.option in allowed]
    measured = [offer for offer in offers if _noise(analysis, group, offer.option) is not None]
    choices = tuple(_choice(analysis, group, offer) for offer in measured)
    why = "" if len(choices) > 1 else _why_float(group, offers)
    name = f"{group.where.partition('.')[0]}.{group.sites[0]}"
    return Part(name, group.id, len(group.sites), group.weight_elements, choices, why_few=why)


def _why_float(group: Group, offers: Sequence[Offered]) -> str:
    if len(group.offers) == 1:
        return "the target offers nothing but float"
    if len(offers) == 1:
        return "none of the options that may be chosen is offered"
    return "nothing but float was measured"


def _noise(analysis: Analysis, group: Group, option: int) -> dict[str, float] | None:
    row = analysis.single.get((group.id, option))
    has_guidance = any(call.branch is not None for call in analysis.calls_of(group.where))
    if row is None or row.prediction is None:
        if option != FLOAT_OPTION:
            return None
        return {"prediction": 0.0, **({"guidance": 0.0} if has_guidance else {})}
    found = {"prediction": row.prediction}
    if has_guidance and row.guidance is None:
        return None
    return found if row.guidance is None else {**found, "guidance": row.guidance}


def _choice(analysis: Analysis, group: Group, offer: Offered) -> Choice:
    option = analysis.options[offer.option]
    costs: dict[str, float] = {
        "bytes": float(offer.bytes),
        "bit_operations": float(group.macs) * _bit_product(option)
        + float(offer.macs_beside) * _FLOAT_BITS**2,
    }
    if offer.latency_ms is not None:
        costs["latency_ms"] = offer.latency_ms
    noise = _noise(analysis, group, offer.option)
    assert noise is not None
    tie = "" if option.weights is None else option.weights.model_dump_json(exclude_unset=True)
    return Choice(offer.option, costs, noise, tie)


def _bit_product(option: Option) -> int:
    weights = _FLOAT_BITS if option.weights is None else bits(option.weights.dtype)
    inputs = _FLOAT_BITS if option.inputs is None else bits(option.inputs.dtype)
    return weights * inputs
