"""Noise call by call: gates are held by the worst one, not by the mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import numpy as np

from qdx.analyze.analysis import FLOAT_OPTION, MEASURES
from qdx.search.solve import Row

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qdx.analyze.analysis import Analysis
    from qdx.search.problem import Assignment, Problem

    Numbers = NDArray[np.float64]

__all__ = ["NoiseByCall", "mean_noise", "noise_by_call"]

_PREDICTION: Final = MEASURES.index("prediction")


class NoiseByCall:
    """The noise that each option of each group adds to the prediction of each call.

    Args:
        noise: By group and option, of every call of every graph; zeros for calls of other graphs than the group's.
    """

    def __init__(self, noise: Mapping[tuple[int, int], Numbers]) -> None:
        self._noise = noise
        self.calls = len(next(iter(noise.values()))) if noise else 0

    def of(self, group: int, option: int) -> Numbers:
        """The noise of an option by call; none for float."""
        if option == FLOAT_OPTION:
            return np.zeros(self.calls)
        return self._noise[group, option]

    def rows(self, problem: Problem, least_db: float) -> tuple[Row, ...]:
        """Bounds by which no call has less than so many decibels under the additive model."""
        most = 10 ** (-least_db / 10)
        each = [[self.of(part.group, c.option) for c in part.choices] for part in problem.parts]
        return tuple(
            Row("sqnr_db", tuple(tuple(float(n[call]) for n in part) for part in each), most)
            for call in range(self.calls)
        )

    def worst(self, problem: Problem, assignment: Assignment) -> float:
        """The noise of the worst call under the additive model."""
        total = np.zeros(self.calls)
        for part, option in zip(problem.parts, assignment, strict=True):
            total += self.of(part.group, option)
        return float(total.max(initial=0.0))


def noise_by_call(analysis: Analysis, single: Mapping[str, Numbers]) -> NoiseByCall:
    """Returns the noise by call of an analysis.

    Args:
        analysis: The analysis.
        single: By graph, what stands beside it: [groups of the graph, options, calls of the graph, measures].
    """
    sizes = {where: array.shape[2] for where, array in single.items()}
    starts = dict(zip(sizes, np.cumsum([0, *sizes.values()]).tolist(), strict=False))
    total = sum(sizes.values())
    found: dict[tuple[int, int], Numbers] = {}
    for where, array in single.items():
        start = starts[where]
        for place, group in enumerate(analysis.groups_of(where)):
            for option in group.options:
                values = np.zeros(total)
                values[start : start + sizes[where]] = array[place, option, :, _PREDICTION]
                if option != FLOAT_OPTION and np.isfinite(values).all():
                    found[group.id, option] = values
    return NoiseByCall(found)


def mean_noise(problem: Problem) -> NoiseByCall:
    """Returns the mean noise of a problem as that of a single call."""
    return NoiseByCall({
        (part.group, choice.option): np.array([choice.noise["prediction"]])
        for part in problem.parts
        for choice in part.choices
    })  # fmt: skip
