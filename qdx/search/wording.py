"""The words of a plan that was found: why each rule is there, and what the whole is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from qdx.analyze.analysis import FLOAT_OPTION, Analysis, Group, Option
from qdx.exporter.plan.schema.found import Figures, Found, Weighing
from qdx.search.pareto import decibels
from qdx.search.problem import Assignment, Problem
from qdx.search.result import Control, Result

__all__ = ["Wording", "describe", "found_section", "reasons", "told_latency"]


class Wording(Protocol):
    """Says why operations, by component and name, take an option: in a segment of the schedule, or at all timesteps."""

    def __call__(
        self, option: Option, sites: Sequence[tuple[str, str]], segment: int | None = None, /
    ) -> str:
        """The reason."""


def reasons(analysis: Analysis, problem: Problem, assignment: Assignment) -> Wording:
    """Returns what says why operations take an option: what it costs there, what it loses, and what the next cheaper one would."""
    groups = {(g.component, key): g for g in analysis.groups for key in g.sites}
    places_of: dict[int, list[int]] = {}
    for place, part in enumerate(problem.parts):
        places_of.setdefault(part.group, []).append(place)
    elements, noise = problem.elements or 1, problem.noise(assignment) or 1.0

    def why(option: Option, sites: Sequence[tuple[str, str]], segment: int | None = None) -> str:
        found: dict[int, Group] = {groups[site].id: groups[site] for site in sites if site in groups}  # fmt: skip
        places = [place for group in found for place in _then(places_of.get(group, []), segment)]
        parts = [problem.parts[place] for place in places]
        if not parts:
            return "what was not searched stays as it is"
        chosen = [part.choice(assignment[p]) for p, part in zip(places, parts, strict=True)]
        lost = sum(choice.noise["prediction"] for choice in chosen)
        if segment is not None:
            start, end = parts[0].steps or (0.0, 1.0)
            return (
                f"{_count(len(sites))} from {start:.0%} to {end:.0%} of the schedule: "
                f"alone {decibels(lost):.1f} dB, {lost / noise:.1%} of the predicted noise"
            )
        share = sum({part.group: part.elements for part in parts}.values()) / elements
        words = f"{_count(len(sites))}, {share:.1%} of the weights searched"
        if option.id == FLOAT_OPTION:
            return f"{words}: {_saved(problem, places, assignment)}"
        words += f": alone {decibels(lost):.1f} dB, {lost / noise:.1%} of the predicted noise"
        if any(part.steps for part in parts):
            return f"{words}; inputs change over the schedule"
        return f"{words}; {_saved(problem, places, assignment)}"

    return why


def _then(places: Sequence[int], segment: int | None) -> Sequence[int]:
    """The parts of a group in a segment."""
    return places if segment is None or len(places) == 1 else [places[segment]]


def _count(number: int) -> str:
    return f"{number} operation{'s'[: number != 1]}"


def _saved(problem: Problem, places: Sequence[int], assignment: Assignment) -> str:
    """What the next cheaper option of each would save and add."""
    saved = added = 0.0
    for place in places:
        part = problem.parts[place]
        now = part.choice(assignment[place])
        cheaper = [c for c in part.choices if c.costs["bytes"] < now.costs["bytes"]]
        if cheaper:
            following = max(cheaper, key=lambda choice: choice.costs["bytes"])
            saved += now.costs["bytes"] - following.costs["bytes"]
            added += following.noise["prediction"] - now.noise["prediction"]
    if not saved:
        return "the target offers nothing smaller"
    if added <= 0:
        return f"the next smaller options would save {_size(saved)}"
    return f"the next smaller options would save {_size(saved)} and add noise of {decibels(added):.1f} dB"  # fmt: skip


def _size(size_bytes: float) -> str:
    return f"{size_bytes / 1e6:.2f} MB" if size_bytes >= 1e4 else f"{size_bytes:.0f} bytes"


def describe(result: Result, target: str, asked: str, base: str, latency: str = "") -> str:
    """Returns the description of the plan; `latency` is what is predicted of that, in words."""
    how = "measured" if result.measured is not None else "predicted, not measured"
    words = f"Found by qdx plan search for {target}, upon {base or 'an unnamed plan'}, with {asked}: {result.sqnr_db():.1f} dB, {how}"
    if result.verdict is not None:
        words += f"; exported and verified, {len(result.verdict.gates)} gates hold"
    rivals = [c for c in result.controls if c.name != "permuted"]
    drawn = [c for c in result.controls if c.name == "permuted"]
    if rivals:
        words += f"; {rivals[0].name} everywhere {decibels(rivals[0].noise['prediction']):.1f} dB at {rivals[0].average_bits:.2f} bits"
    if latency:
        words += f"; {latency}"
    if drawn:
        words += f"; the same options permuted {decibels(_mean(drawn)['prediction']):.1f} dB"
    return f"{words}."


def told_latency(analysis: Analysis, problem: Problem, assignment: Assignment) -> str:
    """What is predicted of latency, in words, and whether that was ever measured; empty where nothing is known."""
    if analysis.latency is None or "latency_ms" not in problem.known_costs:
        return ""
    ms = problem.cost(assignment, "latency_ms")
    fast = (
        "" if problem.float_ms is None else f", {problem.float_ms / ms:.2f} times as fast as float"
    )
    how = (
        "by measured times" if analysis.latency.source == "measured" else "as declared of a device"
    )
    return f"{ms:.4g} ms{fast}, {how} of operations"


def found_section(
    problem: Problem,
    result: Result,
    *,
    target: str,
    analysis: str,
    asked: str,
    weigh: Weighing,
    prefer: str,
    guidance_weight: float,
    fixed: Sequence[str],
    no_float: bool,
    seed: int,
) -> Found:
    """Returns what the plan says of its search.

    Args:
        problem: What there was to choose.
        result: What came out.
        target: Its name.
        analysis: SHA-256 of it.
        asked: Budgets and goals as given.
        weigh: How steps of the schedule counted.
        prefer: The cost that goals made least.
        guidance_weight: Of the noise of what the prompt adds, beside 1 for the prediction.
        fixed: Roles whose operations stayed as the base has them.
        no_float: Whether every other operation had to take an option.
        seed: Of the controls.
    """
    known = problem.known_costs
    latency = problem.cost(result.assignment, "latency_ms") if "latency_ms" in known else None
    rivals = [c for c in result.controls if c.name != "permuted"]
    drawn = [c for c in result.controls if c.name == "permuted"]
    return Found(
        target=target,
        analysis=analysis,
        asked=asked,
        weigh=weigh,
        prefer=prefer,
        guidance_weight=guidance_weight or None,
        fixed=tuple(fixed) or None,
        no_float=no_float or None,
        seed=seed,
        bytes=round(problem.cost(result.assignment, "bytes")),
        average_bits=round(problem.average_bits(result.assignment), 4),
        latency_ms=None if latency is None else round(latency, 4),
        speedup=_speedup(problem, latency),
        predicted=_figures(result.predicted),
        measured=_measured(result),
        uniform=_figures(rivals[0].noise) if rivals else None,
        permuted=_figures(_mean(drawn)) if drawn else None,
        gates=None if result.verdict is None else tuple(one.told() for one in result.verdict.gates),
    )


def _measured(result: Result) -> Figures | None:
    psnr_db = None if result.verdict is None else result.verdict.psnr_db
    if result.measured is None and psnr_db is None:
        return None
    return _figures(result.measured or {}).model_copy(
        update={"psnr_db": None if psnr_db is None else round(psnr_db, 2)}
    )


def _speedup(problem: Problem, latency: float | None) -> float | None:
    if not latency or problem.float_ms is None:
        return None
    return round(problem.float_ms / latency, 4)


def _mean(controls: Sequence[Control]) -> dict[str, float]:
    names = controls[0].noise
    return {name: sum(c.noise[name] for c in controls) / len(controls) for name in names}


def _figures(noise: Mapping[str, float]) -> Figures:
    def told(name: str) -> float | None:
        value = noise.get(name)
        return None if value is None or value <= 0 else round(decibels(value), 2)

    return Figures(sqnr_db=told("prediction"), guidance_db=told("guidance"))
