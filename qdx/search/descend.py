"""Changes one by one and two at once, by what inner products of errors and slopes say of them, for as long as one helps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from qdx.exporter.errors import InternalError
from qdx.search.interactions import Interactions
from qdx.search.problem import Assignment, Problem
from qdx.search.solve import Row

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

__all__ = ["descend"]

_MOVES_MOST: Final = 1000
"""Of more single changes than this, pairs are formed of those alone that cost least noise."""
_LEAST_GAIN: Final = 1e-9
"""Of the noise; what gains less is rounding."""


def descend(
    problem: Problem,
    interactions: Interactions,
    start: Assignment,
    rows: Sequence[Row],
    *,
    slopes: Numbers | None = None,
    noise: float = 0.0,
    share: float = 1.0,
    most_changes: int | None = None,
) -> Assignment:
    """Returns an assignment that neither one change nor two at once make better; every bound is kept.

    With D the changes of errors, the noise of an assignment is that of the start and Σ slope + |Σ D|². Without slopes they are
    2 <T, D>, T being the error of the start as the errors add up to it.

    Args:
        problem: Parts without timesteps.
        interactions: Of its choices.
        start: Where to begin; it keeps the bounds.
        rows: The bounds.
        slopes: What each choice changes of the noise in first order, where the start holds, in the order of the errors.
        noise: Of the start, with slopes: no change takes away more than there is. Where a slope is too steep for the size that
            a change of error has alone, |<T, D>|² > |T|² |D|², it is larger here, and counts as large as it must be.
        share: How much of the inner products of different parts counts, from 0 to 1. What was measured on few calls, or
            elsewhere, has products by chance, which less of them forgives. 0 without slopes is the additive model.
        most_changes: How many parts may differ from the start at most; None for all.
    """
    return _Descent(problem, interactions, start, rows, slopes, noise, share).run(most_changes)


class _Descent:
    def __init__(
        self,
        problem: Problem,
        interactions: Interactions,
        start: Assignment,
        rows: Sequence[Row],
        slopes: Numbers | None,
        noise: float,
        share: float,
    ) -> None:
        counts = [len(part.choices) for part in problem.parts]
        self._problem = problem
        self._firsts = np.concatenate([[0], np.cumsum(counts)]).astype(int)
        self._owner = np.repeat(np.arange(len(counts)), counts)
        if len(interactions.errors) != len(self._owner):
            raise InternalError("the errors are not those of the problem's choices")
        self._share = share
        self._products = interactions.products
        self._costs = [np.concatenate([np.asarray(v, float) for v in row.values]) for row in rows]
        self._changes = [row.changes for row in rows]
        self._most = [row.most for row in rows]
        self._now = np.array(
            [
                int(self._firsts[place]) + [c.option for c in part.choices].index(option)
                for place, (part, option) in enumerate(zip(problem.parts, start, strict=True))
            ]
        )
        self._start = self._now.copy()
        self._own, size = self._linear(interactions, slopes, noise)
        self._least = _LEAST_GAIN * size
        # <e, Σ D> of every choice.
        self._along = np.zeros(len(self._owner))

    def run(self, most_changes: int | None) -> Assignment:
        for _ in range(100 * len(self._now) + 100):
            before = self._now.copy()
            chosen = self._best()
            if not chosen:
                break
            for move in chosen:
                place = self._owner[move]
                self._along += self._products[:, move] - self._products[:, self._now[place]]
                self._now[place] = move
            if most_changes is not None and int((self._now != self._start).sum()) > most_changes:
                self._now = before
                break
        return tuple(
            part.choices[int(now - first)].option
            for part, now, first in zip(self._problem.parts, self._now, self._firsts, strict=False)
        )

    def _linear(
        self, interactions: Interactions, slopes: Numbers | None, known: float
    ) -> tuple[Numbers, float]:
        """What each choice adds to the noise where all else is as at the start; and the noise there, about."""
        products, start = self._products, self._start[self._owner]
        norms = np.diag(products)
        own = norms - 2 * products[np.arange(len(start)), start] + norms[start]
        base = interactions.base
        noise = float(norms[self._start].sum()) + (0.0 if base is None else float(base @ base))
        if slopes is not None:
            steep = slopes - slopes[start]
            return np.maximum(own, steep**2 / (4 * known)) + steep, noise
        total = products[:, self._start].sum(1)
        held = products[np.arange(len(start)), start]
        # <T, D> of the part's own error in full, of the others' with the share.
        along = self._share * (total - held) + held
        if base is not None:
            along = along + interactions.errors @ base
        return own + 2 * (along - along[start]), noise

    def _best(self) -> list[int]:
        """The best single or double change; nothing where none helps."""
        products, now = self._products, self._now[self._owner]
        every = np.arange(len(now))
        start = self._start[self._owner]
        # With the changes of other parts: with all of them, without the part's own.
        own = products[every, now] - products[every, start]
        held = products[now, now] - products[now, start]
        others = (self._along - own) - (self._along[now] - held)
        alone = self._own - self._own[now] + 2 * self._share * others
        spent, more = self._spent(now)
        fits = np.ones(len(alone), dtype=bool)
        for most, was, change in zip(self._most, spent, more, strict=True):
            fits &= was + change <= most
        single = np.where(fits & (every != now), alone, np.inf)
        one = int(np.argmin(single))
        moves = self._moves(alone, now)
        pairs = alone[moves][:, None] + alone[moves][None]
        pairs += 2 * self._share * self._between(moves, now[moves])
        pairs[self._owner[moves][:, None] == self._owner[moves][None]] = np.inf
        for number, (most, was, change) in enumerate(zip(self._most, spent, more, strict=True)):
            both = was + change[moves][:, None] + change[moves][None]
            if (changes := self._changes[number]) is not None:
                both += changes.together(self._places, self._firsts.tolist(), moves)
            pairs[both > most] = np.inf
        two = int(np.argmin(pairs)) if pairs.size else 0
        gain_two = float(pairs.flat[two]) if pairs.size else np.inf
        if min(float(single[one]), gain_two) >= -self._least:
            return []
        return (
            [one] if single[one] <= gain_two else [int(moves[k]) for k in divmod(two, len(moves))]
        )

    @property
    def _places(self) -> list[int]:
        return [int(now - first) for now, first in zip(self._now, self._firsts, strict=False)]

    def _spent(self, now: NDArray[np.int_]) -> tuple[list[float], list[Numbers]]:
        """What each bound's sum is now, and what single changes add to it."""
        spent = [float(costs[self._now].sum()) for costs in self._costs]
        more = [costs - costs[now] for costs in self._costs]
        for number, changes in enumerate(self._changes):
            if changes is not None:
                spent[number] += changes.total(self._places)
                more[number] += changes.more_by_single(self._places, self._firsts.tolist())
        return spent, more

    def _between(self, moves: NDArray[np.int_], now: NDArray[np.int_]) -> Numbers:
        """Inner products of the changes that moves make."""
        products = self._products
        found: Numbers = (
            products[np.ix_(moves, moves)]
            - products[np.ix_(moves, now)]
            - products[np.ix_(now, moves)]
            + products[np.ix_(now, now)]
        )
        return found

    def _moves(self, alone: Numbers, now: NDArray[np.int_]) -> NDArray[np.int_]:
        every = np.flatnonzero(np.arange(len(alone)) != now)
        if len(every) <= _MOVES_MOST:
            return every
        return np.sort(every[np.argsort(alone[every], kind="stable")[:_MOVES_MOST]])
