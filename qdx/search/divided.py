"""A problem in which inputs may change over the schedule, and what it is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qdx.search.ledger import Measure
    from qdx.search.problem import Assignment, Problem
    from qdx.search.solve import Objective

__all__ = ["Divide", "Divided", "Undivided"]


@dataclass(frozen=True)
class Undivided:
    """What was found without timesteps.

    Attributes:
        problem: What there was to choose.
        assignment: The option of each part.
        fixed: Places of parts that stay as they are.
        objective: What noise counts how much.
        budgets: Bounds of costs.
    """

    problem: Problem
    assignment: Assignment
    fixed: frozenset[int]
    objective: Objective
    budgets: Mapping[str, float]


@dataclass(frozen=True)
class Divided:
    """A problem in which inputs may change over the schedule.

    Attributes:
        problem: Options from `first` on are those of the analysis by segment: `first + k` is option k.
        steps: The segments as fractions of the schedule.
        first: See `problem`.
        measure: Measures its assignments.
    """

    problem: Problem
    steps: tuple[tuple[float, float], ...]
    first: int
    measure: Measure

    def undivided(self, assignment: Assignment, problem: Problem) -> Assignment:
        """Returns an assignment of the problem without timesteps as one of this, with the same ranges at all timesteps."""
        options = {
            part.group: option for part, option in zip(problem.parts, assignment, strict=True)
        }
        return tuple(options[part.group] for part in self.problem.parts)

    def like(self, assignment: Assignment, problem: Problem) -> dict[str, Assignment]:
        """Returns the same options with ranges of their own in every segment, by name; none where a part lacks them."""
        found = []
        pairs = zip(self.problem.parts, self.undivided(assignment, problem), strict=True)
        for part, option in pairs:
            known = [choice.option for choice in part.choices]
            if self.first + option in known:
                found.append(self.first + option)
            elif option in known:
                found.append(option)
            else:
                return {}
        return {"as at all timesteps": tuple(found)}

    def by_group(self, assignment: Assignment) -> dict[int, tuple[int, ...]]:
        """Returns the options of each group of the analysis in every segment, numbered as there; one where it is not divided."""
        found: dict[int, list[int]] = {}
        for part, option in zip(self.problem.parts, assignment, strict=True):
            found.setdefault(part.group, []).append(option)
        return {
            group: (options[0],) if options[0] < self.first else tuple(o - self.first for o in options)
            for group, options in found.items()
        }  # fmt: skip


Divide = Callable[[Undivided, int], Divided | None]
"""Divides the schedule into so many segments at most; None where no inputs have ranges from calibration."""
