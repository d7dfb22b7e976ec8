"""The search again with the schedule divided: from what was found with the same inputs at all timesteps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from qdx.exporter.errors import TargetRefusal, UsageError
from qdx.search.divided import Undivided
from qdx.search.pareto import decibels
from qdx.search.search import search

if TYPE_CHECKING:
    from qdx.exporter.plan import Plan
    from qdx.exporter.progress import Progress
    from qdx.search.budgets import Demand
    from qdx.search.divided import Divide, Divided
    from qdx.search.ledger import Measure
    from qdx.search.problem import Problem
    from qdx.search.result import Result
    from qdx.search.search import Settings

__all__ = ["Searched", "check_timestep_groups", "over_schedule"]

_NO_BETTER: Final = "ranges and types that change over the schedule are no better here"


@dataclass(frozen=True)
class Searched:
    """What a search found.

    Attributes:
        problem: What there was to choose.
        result: All figures.
        divided: The schedule, where inputs change over it.
    """

    problem: Problem
    result: Result
    divided: Divided | None = None

    @property
    def steps(self) -> tuple[tuple[float, float], ...]:
        """The segments as fractions of the schedule; none where inputs are the same at all timesteps."""
        return () if self.divided is None else self.divided.steps

    @property
    def by_group(self) -> dict[int, tuple[int, ...]]:
        """Of each group of the analysis its option, or that of every segment."""
        if self.divided is not None:
            return self.divided.by_group(self.result.assignment)
        pairs = zip(self.problem.parts, self.result.assignment, strict=True)
        return {part.group: (option,) for part, option in pairs}


def check_timestep_groups(
    groups: int, base: Plan, *, predicted: bool, judged: bool = False
) -> None:
    """Refuses a number of segments that cannot be.

    Args:
        groups: The number.
        base: The plan that the search begins from.
        predicted: Whether nothing is measured.
        judged: Whether finished pictures are.

    Raises:
        UsageError: It is below one, more than calibration keeps apart, nothing is measured, or finished pictures are judged.
    """
    if groups < 1:
        raise UsageError(f"--timestep-groups: {groups}, expected 1 or more")
    known = base.calibration.timestep_groups
    if groups > known:
        raise UsageError(
            f"--timestep-groups: {groups}, and the plan's calibration keeps {known} groups of timesteps apart",
            hint="ask for fewer, or analyze and search upon a plan with more `calibration.timestep_groups`",
        )
    if groups > 1 and predicted:
        raise UsageError(
            "--timestep-groups: ranges over the schedule are not in an analysis",
            hint="leave --predicted out, so that they are recorded and candidates are measured",
        )
    if groups > 1 and judged:
        raise UsageError(
            "--timestep-groups: finished pictures are not judged while the schedule is divided",
            hint="ask for --budget, --goal sqnr_db or --goal guidance_db",
        )


def over_schedule(
    found: Searched,
    demand: Demand,
    settings: Settings,
    divide: Divide,
    groups: int,
    *,
    keeping: Callable[[Measure, str], Measure],
    progress: Progress,
) -> Searched:
    """Returns the better of what was found and what is found with the schedule divided.

    Args:
        found: With the same inputs at all timesteps.
        demand: What it satisfies.
        settings: Of the search.
        divide: Divides the schedule.
        groups: Segments at most.
        keeping: Keeps what a function measures, under a name.
        progress: Told of the steps.

    Raises:
        UsageError: More segments than the calibration keeps apart.
    """
    cost = found.problem.cost(found.result.assignment, settings.prefer)
    undivided = Undivided(
        found.problem,
        found.result.assignment,
        frozenset(settings.fixed),
        settings.objective,
        demand.budgets or {settings.prefer: cost},
    )
    divided = divide(undivided, groups)
    if divided is None:
        progress.say("no inputs have ranges from calibration here: the schedule is not divided")
        return found
    before = divided.undivided(found.result.assignment, found.problem)
    (same,) = divided.measure([before])
    demand = _no_worse(demand, same.noise)
    name = "-".join(f"{start:.9g}" for start, _ in divided.steps)
    # A change in one segment is measured on its calls alone.
    anew = replace(
        settings,
        fixed={},
        measurements=settings.measurements * len(divided.steps),
        starts=divided.like(found.result.assignment, found.problem),
    )
    try:
        result = search(
            divided.problem, demand, anew, measure=keeping(divided.measure, name), progress=progress
        )
    except TargetRefusal as refused:
        progress.say(f"{_NO_BETTER}: {refused.message}")
        return found
    other = Searched(divided.problem, result, divided)
    if _rank(other, result.measured or {}, demand, settings) < _rank(
        found, same.noise, demand, settings
    ):
        return other
    progress.say(_NO_BETTER)
    return found


def _no_worse(demand: Demand, noise: Mapping[str, float]) -> Demand:
    """The demand where errors of a run add up: a goal of single steps means what was found for it has there.

    Args:
        demand: As it was given.
        noise: Of what was found, in sums over runs.
    """
    return replace(demand, bounds={name: decibels(noise[name]) for name in demand.bounds})


def _rank(
    one: Searched, noises: Mapping[str, float], demand: Demand, settings: Settings
) -> tuple[float, ...]:
    """What is less for the better one."""
    noise = sum(share * noises[name] for name, share in settings.objective.noises.items())
    if demand.budgets:
        return (noise,)
    return (one.problem.cost(one.result.assignment, settings.prefer), noise)
