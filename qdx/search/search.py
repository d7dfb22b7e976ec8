"""The search: from a problem and demands to the best assignment that was measured, with its front and its controls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Final

from qdx.exporter.errors import TargetRefusal, UsageError
from qdx.exporter.progress import SILENT, Progress
from qdx.search.budgets import Demand
from qdx.search.by_call import NoiseByCall, mean_noise
from qdx.search.by_slopes import Slopes
from qdx.search.controls import permuted, uniform
from qdx.search.descend import descend
from qdx.search.interactions import ErrorsOf, Interactions
from qdx.search.judged import cheapest_held
from qdx.search.ledger import Ledger, Measure, Measured
from qdx.search.pareto import decibels, pareto
from qdx.search.problem import Allowed, Assignment, Problem
from qdx.search.refit import Refitted, refit
from qdx.search.result import Control, Result
from qdx.search.solve import Objective, Row, budget_rows, keeps, noise_rows, solve
from qdx.search.verdict import Judge

__all__ = ["Settings", "search"]

_SHARES: Final = (0.3, 0.6, 1.0)
"""How much of the inner products candidates take into account."""
_MOVED_MOST: Final = 8
_LEVEL: Final = 1 + 1e-9
"""What is measured of what is allowed, where sums and logarithms in another order differ in the last places."""
_PREDICTION: Final = Objective({"prediction": 1.0})


@dataclass(frozen=True)
class Settings:
    """What a search does beside its demands.

    Attributes:
        objective: What noise counts how much.
        prefer: The cost that becomes least where goals are given, and that the front is over.
        seed: Of the permuted controls.
        measurements: How many assignments may be measured for the refit; controls and the front come on top.
        fixed: What the user insists on, by place of the part.
        starts: What the search begins from, by name: what is found is never worse, as measured. One that cannot be chosen,
            or does not satisfy the demands, is left out.
        start_db: Noise of the worst call at which finished pictures are expected to hold, where they are judged.
    """

    objective: Objective = _PREDICTION
    prefer: str = "bytes"
    seed: int = 0
    measurements: int = 2000
    fixed: Mapping[int, Allowed] = field(default_factory=lambda: MappingProxyType({}))
    starts: Mapping[str, Assignment] = field(default_factory=lambda: MappingProxyType({}))
    start_db: float = 25.0


def search(
    problem: Problem,
    demand: Demand,
    settings: Settings = Settings(),
    *,
    measure: Measure | None = None,
    errors_of: ErrorsOf | None = None,
    judge: Judge | None = None,
    by_call: NoiseByCall | None = None,
    slopes: Slopes | None = None,
    slower: Callable[[Assignment], bool] | None = None,
    progress: Progress = SILENT,
) -> Result:
    """Finds the assignment that satisfies demands best.

    With budgets, noise becomes least; with goals alone, the preferred cost.

    Args:
        problem: What there is to choose.
        demand: Budgets and goals; one at least.
        settings: Everything else.
        measure: Measures assignments whole; None leaves all to the model.
        errors_of: Errors of single choices; None where the analysis kept none.
        judge: Judges finished pictures; needed where the demand has such goals.
        by_call: Noise by call, by which assignments to judge are proposed; None takes the mean noise.
        slopes: Tells what options change of the objective in first order where an assignment holds; None where nothing does.
        slower: Tells whether an assignment was measured to take longer than what the search begins from; None where nothing
            times them.
        progress: Told of the steps.

    Raises:
        TargetRefusal: The demands cannot be met: names the least that can be.
        UsageError: Nothing is demanded, or the analysis does not know what it would need.
    """
    demand.check(makes_pictures=judge is not None)
    problem = problem.restricted(settings.fixed)
    budgets = budget_rows(problem, demand.budgets)
    _check_known(problem, settings.prefer)
    work = _Search(problem, settings, budgets, measure, errors_of, slopes, slower, progress)
    if demand.judged:
        assert judge is not None
        return work.judged(judge, by_call, noise_rows(problem, demand.bounds))
    if demand.budgets:
        return work.least_noise(noise_rows(problem, demand.bounds))
    return work.least_cost(demand.bounds)


def _check_known(problem: Problem, cost: str) -> None:
    if cost not in problem.known_costs:
        hint = f"it knows {', '.join(problem.known_costs)}"
        raise UsageError(
            f"--prefer: the analysis does not know `{cost}` of every option",
            hint=f"analyze with `--latency auto`; {hint}" if cost == "latency_ms" else hint,
        )


class _Search:
    def __init__(
        self,
        problem: Problem,
        settings: Settings,
        budgets: Sequence[Row],
        measure: Measure | None,
        errors_of: ErrorsOf | None,
        slopes: Slopes | None,
        slower: Callable[[Assignment], bool] | None,
        progress: Progress,
    ) -> None:
        self._problem = problem
        self._settings = settings
        self._budgets = budgets
        self._measure = measure
        self._errors_of = errors_of
        self._slopes = slopes
        self._slower = slower if settings.prefer == "latency_ms" else None
        self._progress = progress
        self._ledger = None if measure is None else Ledger(measure, settings.objective, settings.measurements)  # fmt: skip

    def least_noise(self, bounds: Sequence[Row]) -> Result:
        """Within budgets."""
        rows = [*self._budgets, *bounds]
        first = solve(self._problem, self._settings.objective, rows)
        if self._ledger is None:
            return self._result(first, first, rows, None)
        candidates = self._candidates(first, rows)
        with self._progress.task("measuring candidates", 1):
            found = refit(
                self._problem, candidates, rows, self._ledger,
                singles=self._singles, slopes=self._slopes,
            )  # fmt: skip
        return self._result(found.assignment, first, rows, found)

    def least_cost(self, bounds_db: Mapping[str, float]) -> Result:
        """For goals: the model's bounds are moved until the measured ones hold."""
        asked = noise_rows(self._problem, bounds_db)
        cheap = Objective(self._settings.objective.noises, self._settings.prefer)
        rows = list(asked)
        first = best = solve(self._problem, cheap, rows)
        if self._ledger is None:
            return self._result(first, first, self._at_cost(first), None)
        holding: Assignment | None = None
        for _ in range(_MOVED_MOST):
            over = self._over(best, bounds_db)
            if _holds(over) and (holding is None or self._cost(best) < self._cost(holding)):
                holding = best
            rows = [
                self._moved(row, name, best, over[name])
                for row, name in zip(rows, bounds_db, strict=True)
            ]
            try:
                following = solve(self._problem, cheap, rows)
            except TargetRefusal:
                break
            if following == best:
                break
            best = following
        for start in self._starts.values():
            if self._beats(start, holding, bounds_db):
                holding = start
        if holding is None:
            holding = self._finest(bounds_db)
        return self._result(holding, first, self._at_cost(holding), None)

    def _beats(
        self, start: Assignment, found: Assignment | None, bounds_db: Mapping[str, float]
    ) -> bool:
        """Whether what the search began from holds what is asked, and is better than what was found."""
        if start == found or not _holds(self._over(start, bounds_db)):
            return False
        if found is None or self._cost(start) < self._cost(found):
            return True
        return self._slower is not None and self._slower(found)

    def _moved(self, row: Row, name: str, best: Assignment, over: float) -> Row:
        """The bound of the model at which the measured one is met, if their ratio stays what it is at the best so far."""
        predicted = self._problem.noise(best, name)
        if not (over and predicted):
            return row
        return replace(row, most=predicted / over * (1.0 if over <= _LEVEL else 0.98))

    def _over(self, assignment: Assignment, bounds_db: Mapping[str, float]) -> dict[str, float]:
        """Each noise, measured, over what is allowed."""
        noise = self._measured(assignment)
        return {name: noise[name] / 10 ** (-least / 10) for name, least in bounds_db.items()}

    @cached_property
    def _starts(self) -> Mapping[str, Assignment]:
        """What the search began from, where it may be chosen."""
        return {n: one for n, one in self._settings.starts.items() if self._problem.allows(one)}

    def judged(self, judge: Judge, by_call: NoiseByCall | None, bounds: Sequence[Row]) -> Result:
        """The cheapest whose pictures hold what is asked."""
        rows = [*self._budgets, *bounds]
        cheap = Objective(self._settings.objective.noises, self._settings.prefer)
        noise = by_call or mean_noise(self._problem)
        held = cheapest_held(
            self._problem, cheap, rows, judge, noise,
            start_db=self._settings.start_db, starts=tuple(self._starts.values()), progress=self._progress,
        )  # fmt: skip
        found = self._result(held.assignment, held.assignment, self._at_cost(held.assignment), None)
        return replace(found, verdict=held.verdict)

    def _candidates(self, first: Assignment, rows: Sequence[Row]) -> dict[str, Assignment]:
        # Sums over parts of the schedule may differ in the last place.
        keeping = {
            name: start
            for name, start in self._starts.items()
            if keeps(self._problem, start, rows, slack=1e-9)
        }
        found = {"additive": first, **keeping}
        singles = self._singles
        for share in _SHARES if singles is not None else ():
            assert singles is not None
            found[f"interactions {share:g}"] = descend(
                self._problem, singles, first, rows, share=share
            )
        return found

    @cached_property
    def _singles(self) -> Interactions | None:
        if self._errors_of is None:
            return None
        return self._errors_of(self._problem, self._settings.objective)

    def _result(
        self,
        assignment: Assignment,
        additive: Assignment,
        rows: Sequence[Row],
        refitted: Refitted | None,
    ) -> Result:
        front = pareto(self._problem, self._settings.objective, cost=self._settings.prefer)
        if self._measure is not None:
            with self._progress.task("measuring the front", 1):
                noises = self._whole([point.assignment for point in front.points])
                front = front.measured([one.noise for one in noises])
        measured = None if self._measure is None else self._measured(assignment)
        return Result(
            assignment,
            {n: self._problem.noise(assignment, n) for n in self._problem.known_noises},
            measured,
            None if self._measure is None else self._measured(additive),
            refitted,
            front,
            self._controls(assignment, rows),
        )

    def _controls(self, assignment: Assignment, rows: Sequence[Row]) -> tuple[Control, ...]:
        named: list[tuple[str, Assignment]] = []
        if (one := uniform(self._problem, rows)) is not None:
            named.append((f"uniform {self._problem.labels[one[0]]}", one[1]))
        drawn = permuted(self._problem, assignment, rows, seed=self._settings.seed)
        named += [("permuted", one) for one in drawn]
        noises = self._noises([one for _, one in named])
        return tuple(
            Control(name, self._problem.average_bits(one), noise)
            for (name, one), noise in zip(named, noises, strict=True)
        )

    def _noises(self, assignments: Sequence[Assignment]) -> Sequence[Mapping[str, float]]:
        if self._measure is not None:
            return [one.noise for one in self._whole(assignments)]
        names = self._problem.known_noises
        return [{n: self._problem.noise(one, n) for n in names} for one in assignments]

    def _measured(self, assignment: Assignment) -> Mapping[str, float]:
        if self._ledger is not None and assignment in self._ledger.known:
            return self._ledger.known[assignment].noise
        return self._whole([assignment])[0].noise

    def _whole(self, assignments: Sequence[Assignment]) -> Sequence[Measured]:
        assert self._measure is not None
        return self._measure(assignments) if assignments else ()

    def _cost(self, assignment: Assignment) -> float:
        return self._problem.cost(assignment, self._settings.prefer)

    def _at_cost(self, assignment: Assignment) -> list[Row]:
        """What controls keep where no budget was given: the cost that was found."""
        # Sums in another order may differ in the last place.
        most = self._cost(assignment) * (1 + 1e-9)
        rows = budget_rows(self._problem, {self._settings.prefer: most})
        return [*self._budgets, *rows]

    def _finest(self, bounds_db: Mapping[str, float]) -> Assignment:
        """What makes the least noise, where nothing cheaper was found that holds.

        Raises:
            TargetRefusal: Nor does that hold.
        """
        finest = solve(self._problem, self._settings.objective)
        if _holds(self._over(finest, bounds_db)):
            return finest
        noise = self._measured(finest)
        words = ", ".join(
            f"{name} {least:g} dB (the most measured is {decibels(noise[name]):.4g})"
            for name, least in bounds_db.items()
        )
        raise TargetRefusal(
            f"no assignment was measured that holds {words}",
            hint="ask for less, or allow options with more bits",
        )


def _holds(over: Mapping[str, float]) -> bool:
    """Whether no measured noise is over what is allowed."""
    return max(over.values()) <= _LEVEL
