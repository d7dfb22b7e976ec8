"""The front: what noise the least is at each cost, as data, a table and a picture."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from qdx.exporter.errors import TargetRefusal
from qdx.search.problem import Assignment, Problem
from qdx.search.solve import Objective, Row, budget_rows, solve

__all__ = ["Front", "Point", "decibels", "front_of", "pareto"]

POINTS: Final = 9
"""How many budgets between the least and the most a front has."""
APART: Final = {"latency_ms": 1.03}
"""How many times the cost of the next cheaper point a point has at least, of costs that are measured: what one artifact takes
differs by as much from one opening to the next."""


def decibels(noise: float) -> float:
    """A noise in power as a signal-to-noise ratio."""
    return math.inf if noise <= 0 else -10 * math.log10(noise)


@dataclass(frozen=True)
class Point:
    """One assignment of the front.

    Attributes:
        assignment: It.
        cost: What it costs, in the unit of the front.
        average_bits: Bits of the file for each weight element.
        predicted: Noises of the model.
        measured: Noises measured; None where it was not.
        taken_ms: What a call takes in the target's runtime, measured; None where it was not.
    """

    assignment: Assignment
    cost: float
    average_bits: float
    predicted: Mapping[str, float]
    measured: Mapping[str, float] | None = None
    taken_ms: float | None = None

    def sqnr_db(self, name: str = "prediction") -> float:
        """The signal-to-noise ratio: measured where it was, else predicted."""
        found = self.predicted if self.measured is None else self.measured
        return decibels(found[name])


@dataclass(frozen=True)
class Front:
    """Points by rising cost.

    Attributes:
        cost: What is spent, of `COSTS`.
        points: The points.
    """

    cost: str
    points: tuple[Point, ...]

    @property
    def is_monotone(self) -> bool:
        """Whether no dearer point has more noise."""
        values = [point.sqnr_db() for point in self.points]
        return all(a <= b for a, b in itertools.pairwise(values))

    def measured(self, noises: Sequence[Mapping[str, float]]) -> Front:
        """Returns the front with what was measured of its points, in order."""
        points = [replace(p, measured=dict(n)) for p, n in zip(self.points, noises, strict=True)]
        return Front(self.cost, tuple(points))

    def rows(self) -> Iterator[tuple[object, ...]]:
        """Rows of a table; see `COLUMNS`."""
        for point in self.points:
            guidance = point.predicted.get("guidance")
            yield (
                _number(point.cost, self.cost),
                round(point.average_bits, 2),
                _db(decibels(point.predicted["prediction"])),
                None if point.measured is None else _db(decibels(point.measured["prediction"])),
                None if guidance is None else _db(point.sqnr_db("guidance")),
                *(() if point.taken_ms is None else (f"{point.taken_ms:.4g}",)),
            )

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns of `rows`."""
        names = (self.cost, "bits per weight", "predicted dB", "measured dB", "guidance dB")
        return (*names, "measured ms") if self.is_timed else names

    @property
    def is_timed(self) -> bool:
        """Whether its points were timed in the target's runtime."""
        return any(point.taken_ms is not None for point in self.points)

    def to_json(self) -> dict[str, Any]:
        """The front as plain JSON data."""
        return {
            "cost": self.cost,
            "points": [
                {
                    "cost": point.cost,
                    "average_bits": round(point.average_bits, 4),
                    "predicted": dict(point.predicted),
                    "measured": None if point.measured is None else dict(point.measured),
                    "assignment": list(point.assignment),
                    **({} if point.taken_ms is None else {"taken_ms": point.taken_ms}),
                }
                for point in self.points
            ],
        }


def _number(value: float, cost: str) -> object:
    return round(value) if cost == "bytes" else round(value, 4)


def _db(value: float) -> float | str:
    return "inf" if math.isinf(value) else round(value, 2)


def pareto(
    problem: Problem,
    objective: Objective,
    rows: Sequence[Row] = (),
    *,
    cost: str = "bytes",
    count: int = POINTS,
) -> Front:
    """Returns the least noise at budgets from the least cost to that of no noise to speak of, each as many times the last.

    Args:
        problem: What there is to choose.
        objective: What noise counts how much.
        rows: Bounds that hold for every point, without one of the same cost.
        cost: What is spent.
        count: Number of budgets.
    """
    try:
        cheapest = solve(problem, Objective(objective.noises, cost), rows)
        finest = solve(problem, Objective(objective.noises), rows)
    except TargetRefusal:
        return Front(cost, ())
    low, high = problem.cost(cheapest, cost), problem.cost(finest, cost)
    apart = APART.get(cost, 1.0)
    if apart > 1 and low > 0:
        count = min(count, 1 + int(math.log(high / low) / math.log(apart)))
    found = []
    for number in range(count):
        most = low * (high / low) ** (number / max(count - 1, 1)) if low > 0 else high
        bound = budget_rows(problem, {cost: most * (1 + 1e-9)})
        found.append(solve(problem, Objective(objective.noises), [*rows, *bound]))
    return front_of(problem, found, cost)


def front_of(problem: Problem, assignments: Sequence[Assignment], cost: str) -> Front:
    """Returns the front of assignments: by rising cost, without those that others beat in cost and in noise.

    Points whose costs are measured stand apart by more than measurements do.
    """
    points = sorted(
        (_point(problem, one, cost) for one in dict.fromkeys(assignments)),
        key=lambda point: (point.cost, point.predicted["prediction"]),
    )
    kept: list[Point] = []
    for point in points:
        if not kept or (
            point.predicted["prediction"] < kept[-1].predicted["prediction"]
            and point.cost >= kept[-1].cost * APART.get(cost, 1.0)
        ):
            kept.append(point)
    return Front(cost, tuple(kept))


def _point(problem: Problem, assignment: Assignment, cost: str) -> Point:
    return Point(
        assignment,
        problem.cost(assignment, cost),
        problem.average_bits(assignment),
        {name: problem.noise(assignment, name) for name in problem.known_noises},
    )
