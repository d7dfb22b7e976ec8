"""What a search returns: the plan, and all figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qdx.search.pareto import Point

if TYPE_CHECKING:
    from qdx.exporter.plan import Plan
    from qdx.search.problem import Problem
    from qdx.search.result import Result

__all__ = ["PlanFound"]


@dataclass(frozen=True)
class PlanFound:
    """What a search returns.

    Attributes:
        plan: The plan.
        result: All figures.
        problem: What there was to choose.
        taken_ms: What was measured in the target's runtime of the plan, `FOUND`, of `float` and of what it began from,
            `BASE`; None where nothing was. Not in the plan, since it is another in every run.
        steps: Segments of the schedule, as fractions of it, in which inputs have ranges and types of their own; empty for one.
    """

    plan: Plan
    result: Result
    problem: Problem
    taken_ms: Mapping[str, float] | None = None
    steps: tuple[tuple[float, float], ...] = ()

    @property
    def predicted_ms(self) -> float | None:
        """What a call takes by the table of the analysis; None where it has none."""
        if "latency_ms" not in self.problem.known_costs:
            return None
        return self.problem.cost(self.result.assignment, "latency_ms")

    @property
    def point(self) -> Point:
        """The plan as a point of the front."""
        front, one = self.result.front, self.result.assignment
        return Point(
            one,
            self.problem.cost(one, front.cost),
            self.problem.average_bits(one),
            self.result.predicted,
            self.result.measured,
        )

    def to_json(self) -> dict[str, Any]:
        """It as plain JSON data."""
        refitted = self.result.refitted
        return {
            "plan": self.plan.to_json(),
            "timesteps": [list(span) for span in self.steps],
            "assignment": list(self.result.assignment),
            "front": self.result.front.to_json(),
            "predicted": dict(self.result.predicted),
            "measured": None if self.result.measured is None else dict(self.result.measured),
            "additive": None if self.result.additive is None else dict(self.result.additive),
            "refit": None
            if refitted is None
            else {
                "start": refitted.start,
                "candidates": dict(refitted.candidates),
                "rounds": list(refitted.rounds),
                "settled": refitted.settled,
                "measured": refitted.measured,
            },
            "judged": None if self.result.verdict is None else self.result.verdict.to_json(),
            **({} if self.taken_ms is None else {"taken_ms": dict(self.taken_ms)}),
            "controls": [
                {"name": c.name, "average_bits": round(c.average_bits, 4), "noise": dict(c.noise)}
                for c in self.result.controls
            ],
        }
