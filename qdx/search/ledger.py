"""What was measured of assignments, each once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from qdx.exporter.errors import InternalError
from qdx.search.problem import Assignment
from qdx.search.solve import Objective

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

__all__ = ["BETTER", "Ledger", "Measure", "Measured"]

BETTER: Final = 0.999
"""What counts as less noise: 0.004 dB."""


@dataclass(frozen=True, eq=False)
class Measured:
    """What was measured of an assignment.

    Attributes:
        noise: By noise, as the analysis has it of single options: means over the calls with their weights.
        errors: By noise, all calls' errors side by side, each with the root of its weight and relative to the output: a
            vector whose squared norm is the noise. None where only the noise is told.
    """

    noise: Mapping[str, float]
    errors: Mapping[str, NDArray[np.floating]] | None = None


Measure = Callable[[Sequence[Assignment]], Sequence[Measured]]
"""Measures assignments whole. Those of a batch often differ in one part from each other."""


class Ledger:
    """What was measured, each assignment once.

    Args:
        measure: Measures what is not known yet.
        objective: What noise counts how much.
        limit: How many assignments may be measured altogether.
    """

    def __init__(self, measure: Measure, objective: Objective, limit: int) -> None:
        self._measure = measure
        self._objective = objective
        self._limit = limit
        self.known: dict[Assignment, Measured] = {}

    @property
    def left(self) -> int:
        """How many more may be measured."""
        return self._limit - len(self.known)

    def values(self, assignments: Sequence[Assignment]) -> list[float]:
        """The objective of assignments, measured.

        Raises:
            InternalError: More are new than may be measured.
        """
        new = [one for one in dict.fromkeys(assignments) if one not in self.known]
        if len(new) > self.left:
            raise InternalError(f"{len(new)} assignments to measure, {self.left} may be")
        if new:
            self.known |= dict(zip(new, self._measure(new), strict=True))
        return [self.value(one) for one in assignments]

    def value(self, assignment: Assignment) -> float:
        """The objective of an assignment that was measured."""
        noise = self.known[assignment].noise
        return sum(share * noise[name] for name, share in self._objective.noises.items())

    def errors(self, assignment: Assignment) -> Numbers | None:
        """The errors of an assignment that was measured, as the objective counts them; None where none were told."""
        errors = self.known[assignment].errors
        if errors is None:
            return None
        parts = [
            np.sqrt(share) * np.asarray(errors[name], np.float64)
            for name, share in sorted(self._objective.noises.items())
        ]
        return np.concatenate(parts)
