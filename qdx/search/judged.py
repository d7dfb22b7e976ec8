"""The cheapest assignment whose finished pictures hold what is asked, with few exports.

Dearer assignments lose less. So there is a level of noise, in decibels of the worst call, at which the cheapest assignment that
keeps it holds just so. It is found by steps as long as the measured margins, and then by halving.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from qdx.exporter.errors import Refusal, TargetRefusal
from qdx.exporter.progress import SILENT, Progress
from qdx.search.by_call import NoiseByCall
from qdx.search.problem import Assignment, Problem
from qdx.search.solve import Objective, Row, keeps, solve
from qdx.search.verdict import Judge, Verdict

__all__ = ["Held", "cheapest_held"]

_NEAR_DB: Final = 0.5
"""Levels this near are one: assignments of both lose about the same."""
_STEP_DB: Final = 0.5


@dataclass(frozen=True)
class Held:
    """An assignment that was judged and holds.

    Attributes:
        assignment: It.
        verdict: On it.
        judged: How many assignments were judged.
    """

    assignment: Assignment
    verdict: Verdict
    judged: int


def cheapest_held(
    problem: Problem,
    cheap: Objective,
    rows: Sequence[Row],
    judge: Judge,
    noise: NoiseByCall,
    *,
    start_db: float,
    starts: Sequence[Assignment] = (),
    progress: Progress = SILENT,
) -> Held:
    """Returns the cheapest assignment that a judge finds holding.

    Args:
        problem: What there is to choose.
        cheap: The cost that becomes least.
        rows: Bounds that hold for every assignment.
        judge: Exports and verifies.
        noise: By call.
        start_db: Where the first candidate is expected to hold: the least that a gate asks of the worst call.
        starts: What the search began from; one is judged where it is cheaper than what was found.
        progress: Told of every verdict.

    Raises:
        TargetRefusal: Nothing within the bounds holds: names the gates that the finest assignment fails; or a gate cannot be
            judged.
    """
    line = _Line(problem, cheap, rows, judge, noise, progress)
    below, above = _bracket(line, start_db)
    if above is None:
        raise _refusal(line)
    while below is not None and above - below > _NEAR_DB and line.differ(below, above):
        middle = (below + above) / 2
        if line.holds(middle):
            above = middle
        else:
            below = middle
    best = min(line.held, key=line.cost)
    for start in starts:
        cheaper = line.cost(start) < line.cost(best) and keeps(problem, start, rows)
        if cheaper and line.verdict(start).ok:
            best = start
    return Held(best, line.verdicts[best], len(line.verdicts))


@dataclass
class _Line:
    """The cheapest assignments by level, and what became of those that were judged."""

    problem: Problem
    cheap: Objective
    rows: Sequence[Row]
    judge: Judge
    noise: NoiseByCall
    progress: Progress
    verdicts: dict[Assignment, Verdict] = field(default_factory=dict)
    _at: dict[float, Assignment] = field(default_factory=dict)

    @property
    def held(self) -> list[Assignment]:
        """What was judged and holds."""
        return [one for one, verdict in self.verdicts.items() if verdict.ok]

    def at(self, level_db: float) -> Assignment:
        """The cheapest assignment of which no call is below a level; the finest where none is that good."""
        if level_db not in self._at:
            try:
                bounds = self.noise.rows(self.problem, level_db)
                self._at[level_db] = solve(self.problem, self.cheap, [*self.rows, *bounds])
            except TargetRefusal:
                self._at[level_db] = self.finest
        return self._at[level_db]

    @cached_property
    def finest(self) -> Assignment:
        """What loses least of all."""
        return solve(self.problem, Objective(self.cheap.noises), self.rows)

    @cached_property
    def cheapest(self) -> Assignment:
        """What costs least of all."""
        return solve(self.problem, self.cheap, self.rows)

    def is_finest(self, assignment: Assignment) -> bool:
        """Whether no other loses less."""
        least = self.noise.worst(self.problem, self.finest)
        return assignment == self.finest or self.noise.worst(self.problem, assignment) <= least

    def is_cheapest(self, assignment: Assignment) -> bool:
        """Whether no other costs less."""
        return self.cost(assignment) <= self.cost(self.cheapest)

    def cost(self, assignment: Assignment) -> float:
        """What becomes least."""
        return self.problem.cost(assignment, self.cheap.cost or "bytes")

    def holds(self, level_db: float) -> bool:
        """Whether the cheapest assignment of a level holds."""
        return self.verdict(self.at(level_db)).ok

    def differ(self, one_db: float, other_db: float) -> bool:
        """Whether two levels have different assignments."""
        return self.at(one_db) != self.at(other_db)

    def verdict(self, assignment: Assignment) -> Verdict:
        """The verdict on an assignment, each judged once."""
        if assignment not in self.verdicts:
            found = self.judge(assignment)
            self.verdicts[assignment] = found
            words = "holds" if found.ok else ", ".join(map(str, found.failed))
            self.progress.say(f"candidate {len(self.verdicts)}: {words}")
        return self.verdicts[assignment]


def _bracket(line: _Line, start_db: float) -> tuple[float | None, float | None]:
    """A level that does not hold and one that does; None for one that there is not."""
    level, step = start_db, _STEP_DB
    below: float | None = None
    above: float | None = None
    while below is None or above is None:
        assignment = line.at(level)
        found = line.verdict(assignment)
        if found.ok:
            above = level
            if line.is_cheapest(assignment):
                break
            level -= max(found.slack_db, step)
        else:
            below = level
            if line.is_finest(assignment):
                break
            level += max(-found.slack_db, step)
        step *= 2
    return below, above


def _refusal(line: _Line) -> TargetRefusal:
    finest = line.verdict(line.finest)
    return TargetRefusal(
        "no assignment that the budgets allow holds what is asked of finished pictures; the one that loses least fails",
        refusals=tuple(
            Refusal(one.name, f"{one.value:.6g}, expected {one.sense} {one.bound:g}{finest.margin_words(one)}")
            for one in finest.failed
        ),
        hint="ask for less, or allow more options; `qdx analyze` tells which operations lose most",
    )  # fmt: skip
