"""Errors of single options side by side: their inner products say what options do to each other in first order.

The noise of an assignment is |Σ e|² = Σ |e|² + 2 Σ <e, f>. The additive model drops the second sum, which is right for
errors without correlation and wrong by a decibel for few bits. The inner products come with the single measurements,
so that no pair of options is ever measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from qdx.analyze.analysis import FLOAT_OPTION, Analysis
from qdx.exporter.errors import InternalError
from qdx.search.problem import Assignment, Problem
from qdx.search.solve import Objective, Row

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

__all__ = ["ErrorsOf", "Interactions", "descend", "errors_from"]

_MOVES_MOST: Final = 1500
"""Of more single changes than this, pairs are formed of those alone that cost least noise."""


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


def descend(
    problem: Problem,
    interactions: Interactions,
    start: Assignment,
    rows: Sequence[Row],
    *,
    share: float = 1.0,
    most_changes: int | None = None,
) -> Assignment:
    """Returns an assignment that neither one change nor two at once make better; every bound is kept.

    Args:
        problem: Parts without timesteps.
        interactions: Of its choices.
        start: Where to begin; it keeps the bounds.
        rows: The bounds.
        share: How much of the inner products counts, from 0 (the additive model) to 1. What was measured on few calls
            has products by chance, which less of them forgives.
        most_changes: How many parts may differ from the start at most; None for all.
    """
    return _Descent(problem, interactions, start, rows, share).run(most_changes)


class _Descent:
    def __init__(
        self,
        problem: Problem,
        interactions: Interactions,
        start: Assignment,
        rows: Sequence[Row],
        share: float,
    ) -> None:
        counts = [len(part.choices) for part in problem.parts]
        self._problem = problem
        self._starts = np.concatenate([[0], np.cumsum(counts)]).astype(int)
        self._owner = np.repeat(np.arange(len(counts)), counts)
        if len(interactions.errors) != len(self._owner):
            raise InternalError("the errors are not those of the problem's choices")
        self._interactions = interactions
        self._errors = interactions.errors
        self._share = share
        self._norms = np.einsum("ij,ij->i", self._errors, self._errors)
        self._costs = [np.concatenate([np.asarray(v, float) for v in row.values]) for row in rows]
        self._changes = [row.changes for row in rows]
        self._most = [row.most for row in rows]
        self._now = np.array(
            [
                int(self._starts[place]) + [c.option for c in part.choices].index(option)
                for place, (part, option) in enumerate(zip(problem.parts, start, strict=True))
            ]
        )

    def run(self, most_changes: int | None) -> Assignment:
        begin = self._now.copy()
        for _ in range(100 * len(self._now) + 100):
            before = self._now.copy()
            if not self._improved():
                break
            if most_changes is not None and int((self._now != begin).sum()) > most_changes:
                self._now = before
                break
        return tuple(
            part.choices[int(now - first)].option
            for part, now, first in zip(self._problem.parts, self._now, self._starts, strict=False)
        )

    def _improved(self) -> bool:
        """Makes the best single or double change; False where none helps."""
        before = self._now[self._owner]
        steps = self._errors - self._errors[before]
        total = self._interactions.total(self._now.tolist())
        # |T + d|² - |T|² = 2 <T, d> + |d|², and of the additive model |e|² - |f|².
        squares = np.einsum("ij,ij->i", steps, steps)
        alone = self._share * (2 * steps @ total + squares)
        alone += (1 - self._share) * (self._norms - self._norms[before])
        spent, more = self._spent(before)
        fits = np.ones(len(alone), dtype=bool)
        for most, was, change in zip(self._most, spent, more, strict=True):
            fits &= was + change <= most
        single = np.where(fits, alone, np.inf)
        one = int(np.argmin(single))
        moves = self._moves(alone, before)
        pairs = alone[moves][:, None] + alone[moves][None]
        pairs += 2 * self._share * (steps[moves] @ steps[moves].T)
        pairs[self._owner[moves][:, None] == self._owner[moves][None]] = np.inf
        for number, (most, was, change) in enumerate(zip(self._most, spent, more, strict=True)):
            both = was + change[moves][:, None] + change[moves][None]
            if (changes := self._changes[number]) is not None:
                both += changes.together(self._places, self._starts.tolist(), moves)
            pairs[both > most] = np.inf
        two = int(np.argmin(pairs)) if pairs.size else 0
        gain_two = float(pairs.flat[two]) if pairs.size else np.inf
        noise = (
            self._share * float(total @ total) + (1 - self._share) * self._norms[self._now].sum()
        )
        if min(float(single[one]), gain_two) >= -1e-9 * noise:
            return False
        chosen = (
            [one] if single[one] <= gain_two else [int(moves[k]) for k in divmod(two, len(moves))]
        )
        for move in chosen:
            self._now[self._owner[move]] = move
        return True

    @property
    def _places(self) -> list[int]:
        return [int(n - s) for n, s in zip(self._now, self._starts, strict=False)]

    def _spent(self, before: NDArray[np.int_]) -> tuple[list[float], list[Numbers]]:
        """What each bound's sum is now, and what single changes add to it."""
        spent = [float(costs[self._now].sum()) for costs in self._costs]
        more = [costs - costs[before] for costs in self._costs]
        for number, changes in enumerate(self._changes):
            if changes is not None:
                spent[number] += changes.total(self._places)
                more[number] += changes.more_by_single(self._places, self._starts.tolist())
        return spent, more

    def _moves(self, alone: Numbers, before: NDArray[np.int_]) -> NDArray[np.int_]:
        every = np.flatnonzero(np.arange(len(alone)) != before)
        if len(every) <= _MOVES_MOST:
            return every
        return np.sort(every[np.argsort(alone[every], kind="stable")[:_MOVES_MOST]])
