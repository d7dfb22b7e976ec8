"""The next assignment from slopes: what every option changes of the noise where the best assignment holds, from one backward pass.

Slopes have all that is first order, exactly, and cost as much as a few measurements. What changes do to each other is taken from the
errors of single options, where everything else is float. That is right in size and less so in sign, and so proposals of
several sizes are made, and measured.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

import numpy as np

from qdx.search.descend import descend
from qdx.search.interactions import Interactions
from qdx.search.ledger import BETTER, Ledger
from qdx.search.problem import Assignment, Problem
from qdx.search.solve import Row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Slopes", "by_slopes"]

Slopes = Callable[[Assignment], Mapping[tuple[int, int], float] | None]
"""Returns what each option of each group changes of the objective where an assignment holds, in first order; None where
nothing tells."""

_LIMITS: Final = (None, 24, 12, 6, 3, 1)
"""How many changes are made at once: proposals of which the best is taken. None is without a limit."""
_SHARES: Final = (1.0, 0.4)
_ONES: Final = 24
"""How many of the most promising single changes and swaps are measured where no proposal is better."""


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
    values = np.array(
        [slopes.get((part.group, c.option), 0.0) for part in problem.parts for c in part.choices]
    )
    proposed = [
        descend(problem, singles, best, rows, slopes=values, share=share, most_changes=limit)
        for limit, share in itertools.product(_LIMITS, _SHARES)
    ]
    found = _better(best, proposed, ledger)
    if found != best:
        return found
    return _better(best, _few(problem, best, values, rows, singles), ledger)


def _better(best: Assignment, proposed: Sequence[Assignment], ledger: Ledger) -> Assignment | None:
    """The best of what is proposed where it is better; None where it may not be measured."""
    new = [one for one in dict.fromkeys(proposed) if one != best]
    if len([one for one in new if one not in ledger.known]) > ledger.left:
        return None
    values = ledger.values(new)
    if not values or min(values) >= BETTER * ledger.value(best):
        return best
    return new[values.index(min(values))]


def _few(
    problem: Problem,
    best: Assignment,
    slopes: NDArray[np.float64],
    rows: Sequence[Row],
    singles: Interactions,
) -> list[Assignment]:
    """Single changes and swaps of two parts within the bounds, those with the least noise first as it is foreseen."""
    owner = np.repeat(np.arange(len(problem.parts)), [len(p.choices) for p in problem.parts])
    options = np.array([c.option for p in problem.parts for c in p.choices])
    now = np.flatnonzero(options == np.array(best)[owner])
    held = now[owner]
    norms = np.diag(singles.products)
    alone = slopes - slopes[held]
    alone = alone + norms - 2 * singles.products[np.arange(len(owner)), held] + norms[held]
    costs = [np.concatenate([np.asarray(v, float) for v in row.values]) for row in rows]
    left = [row.most - cost[now].sum() for row, cost in zip(rows, costs, strict=True)]
    more = [cost - cost[held] for cost in costs]
    moves = np.flatnonzero(options != np.array(best)[owner])
    moves = moves[np.argsort(alone[moves], kind="stable")[: 12 * _ONES]]
    sets = itertools.chain(
        ((int(a),) for a in moves),
        ((int(a), int(b)) for a, b in itertools.combinations(moves, 2) if owner[a] != owner[b]),
    )
    foreseen = [
        (float(sum(alone[k] for k in chosen)), chosen)
        for chosen in sets
        if all(sum(m[k] for k in chosen) <= room for m, room in zip(more, left, strict=True))
    ]
    foreseen.sort()
    found = []
    for _, chosen in foreseen[:_ONES]:
        changed = list(best)
        for move in chosen:
            changed[owner[move]] = int(options[move])
        found.append(tuple(changed))
    return found
