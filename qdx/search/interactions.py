"""Errors of single options side by side: their inner products say what options do to each other in first order.

The noise of an assignment is |Σ e|² = Σ |e|² + 2 Σ <e, f>. The additive model drops the second sum, which is right for
errors without correlation and wrong by a decibel for few bits. The inner products come with the single measurements,
so that no pair of options is ever measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from qdx.analyze.analysis import FLOAT_OPTION, Analysis
from qdx.exporter.errors import InternalError
from qdx.search.problem import Problem
from qdx.search.solve import Objective

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

__all__ = ["ErrorsOf", "Interactions", "errors_from"]


@dataclass(frozen=True)
class Interactions:
    """Errors of every choice.

    Attributes:
        errors: A row for each choice of each part in the order of the problem. Its squared norm is the noise that the
            objective counts of it.
        base: The error that is there anyway; None for none.
    """

    errors: Numbers
    base: Numbers | None = None

    @cached_property
    def products(self) -> Numbers:
        """The inner product of each choice's error with each other's, [choices, choices]."""
        found: Numbers = self.errors @ self.errors.T
        return found

    def noise(self, rows: Sequence[int]) -> float:
        """The noise of choices together."""
        total = self.total(rows)
        return float(total @ total)

    def total(self, rows: Sequence[int]) -> Numbers:
        """The error of choices together."""
        total: Numbers = self.errors[list(rows)].sum(0)
        return total if self.base is None else total + self.base


ErrorsOf = Callable[[Problem, Objective], Interactions]
"""Returns the errors of a problem's choices, as an objective counts them."""


def errors_from(
    analysis: Analysis, errors: Mapping[str, Mapping[str, NDArray[np.floating[Any]]]]
) -> ErrorsOf:
    """Returns what has the errors of single measurements at hand.

    Args:
        analysis: Whose groups and options they are of.
        errors: By noise and graph, [groups of the graph, options, dimensions]: all calls side by side, each with the root
            of its weight and relative to the output, so that the squared norm of a row is the mean noise. Not a number
            where nothing was measured.
    """
    places = {g.id: (where, k) for where in analysis.wheres for k, g in enumerate(analysis.groups_of(where))}  # fmt: skip

    def of(problem: Problem, objective: Objective) -> Interactions:
        blocks = []
        for noise, share in sorted(objective.noises.items()):
            for where in analysis.wheres:
                found = errors[noise][where]
                block = np.zeros((sum(len(p.choices) for p in problem.parts), found.shape[2]))
                row = 0
                for part in problem.parts:
                    at, k = places[part.group]
                    for choice in part.choices:
                        if at == where and choice.option != FLOAT_OPTION:
                            block[row] = found[k, choice.option]
                        row += 1
                blocks.append(np.sqrt(share) * block)
        joined = np.concatenate(blocks, axis=1)
        if not np.isfinite(joined).all():
            raise InternalError("the analysis has noise of a choice, and no errors of it")
        return Interactions(joined)

    return of
