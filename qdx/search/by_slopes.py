"""The next assignment from slopes: what every option changes of the noise where the best assignment holds, from one backward pass.

Slopes have all that is first order, exactly, and cost as much as a few measurements. What changes do to each other is taken from the
errors of single options, where everything else is float. That is right in size and less so in sign, and so proposals of
several sizes are made, and measured. Where none is better, slopes still tell which of all single changes are worth measuring.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

import numpy as np

from qdx.search.descend import descend
from qdx.search.interactions import Interactions
from qdx.search.ledger import BETTER, Ledger
from qdx.search.local import Move
from qdx.search.problem import Assignment, Problem
from qdx.search.solve import Row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Slopes", "by_slopes", "promising"]

Slopes = Callable[[Assignment], Mapping[tuple[int, int], float] | None]
"""Returns what each option of each group changes of the objective where an assignment holds, in first order; None where
nothing tells."""

_LIMITS: Final = (None, 24, 12, 6, 3, 1)
"""How many changes are made at once: proposals of which the best is taken. None is without a limit."""
_SHARES: Final = (1.0, 0.4)
_MOVES_EACH: Final = 16
"""How many single changes that save are measured, how many that spend, and how many that cost the same."""


def by_slopes(
    problem: Problem,
    best: Assignment,
    slopes: Mapping[tuple[int, int], float],
    rows: Sequence[Row],
    ledger: Ledger,
    singles: Interactions,
) -> Assignment | None:
    """Returns a better assignment, or the same where none was found.

    Args:
        problem: What there is to choose.
        best: The assignment; it was measured.
        slopes: By group and option, where it holds.
        rows: Bounds.
        ledger: Measures.
        singles: Errors of all choices with all else float.

    Returns:
        None where more would have to be measured than may be.
    """
    if ledger.value(best) == 0:
        return best
    values = _by_choice(problem, slopes)
    proposed = [
        descend(
            problem, singles, best, rows,
            slopes=values, noise=ledger.value(best), share=share, most_changes=limit,
        )
        for limit, share in itertools.product(_LIMITS, _SHARES)
    ]  # fmt: skip
    new = [one for one in dict.fromkeys(proposed) if one != best]
    if sum(one not in ledger.known for one in new) > ledger.left:
        return None
    noises = ledger.values(new)
    if not noises or min(noises) >= BETTER * ledger.value(best):
        return best
    return new[noises.index(min(noises))]


def promising(
    problem: Problem,
    best: Assignment,
    slopes: Mapping[tuple[int, int], float],
    rows: Sequence[Row],
    singles: Interactions,
) -> tuple[Move, ...]:
    """Returns the changes of one part that are worth measuring.

    Of those that save, that spend, and that cost the same, they are the ones that are foreseen to add the least noise, or to take
    the most of it away, for what they save or spend.

    Args:
        problem: What there is to choose.
        best: Where the changes are made.
        slopes: By group and option, where it holds.
        rows: Bounds; what is saved and spent is what the first one bounds.
        singles: Errors of all choices with all else float.
    """
    owner = np.repeat(np.arange(len(problem.parts)), [len(p.choices) for p in problem.parts])
    options = np.array([c.option for p in problem.parts for c in p.choices])
    chosen = options == np.array(best)[owner]
    held = np.flatnonzero(chosen)[owner]
    products, values = singles.products, _by_choice(problem, slopes)
    norms = np.diag(products)
    change = values - values[held] + norms - 2 * products[np.arange(len(owner)), held] + norms[held]
    costs = np.concatenate([np.asarray(v, float) for v in rows[0].values])
    more = costs - costs[held]
    found: list[Move] = []
    for kind in (more < 0, more > 0, (more == 0) & ~chosen):
        moves = np.flatnonzero(kind)
        rates = change[moves] / np.where(more[moves] == 0, 1.0, np.abs(more[moves]))
        order = np.argsort(rates, kind="stable")[:_MOVES_EACH]
        found += [(int(owner[move]), int(options[move])) for move in moves[order]]
    return tuple(found)


def _by_choice(problem: Problem, slopes: Mapping[tuple[int, int], float]) -> NDArray[np.float64]:
    """Slopes in the order of the choices; 0 of those that are chosen."""
    return np.array(
        [slopes.get((part.group, c.option), 0.0) for part in problem.parts for c in part.choices]
    )
