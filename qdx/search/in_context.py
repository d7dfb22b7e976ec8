"""The next assignment from the errors of single changes where the best one holds: a Gauss-Newton step over integers.

With T the error of the assignment and d the change of it by one move, the noise of several moves is |T + Σ d|² in first
order. All interactions among them are in the inner products, so that nothing need be measured in pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from qdx.search.descend import descend
from qdx.search.interactions import Interactions
from qdx.search.ledger import BETTER, Ledger
from qdx.search.local import Move, local_problem, with_moves
from qdx.search.problem import Assignment, Problem
from qdx.search.solve import Row

__all__ = ["by_errors"]

_LIMITS: Final = (None, 24, 12, 6, 2)
"""How many changes are made at once: proposals of which the best is taken. None is without a limit."""


def by_errors(
    problem: Problem,
    best: Assignment,
    moves: Sequence[Move],
    rows: Sequence[Row],
    ledger: Ledger,
    *,
    singles: Interactions | None = None,
) -> Assignment | None:
    """Returns a better assignment, or the same where none was found.

    Args:
        problem: What there is to choose.
        best: The assignment; it was measured with errors, and so was every move from it.
        moves: Single changes of it.
        rows: Bounds.
        ledger: Measures.
        singles: Errors of all choices with all else float, which stand for moves that were not measured here.

    Returns:
        None where more would have to be measured than may be.
    """
    base = ledger.errors(best)
    assert base is not None
    known = {move: _of(ledger, best, move) - base for move in moves}
    if singles is not None:
        known = {**_elsewhere(problem, best, singles), **known}
    noises = {move: {"prediction": float(d @ d)} for move, d in known.items()}
    local, local_rows = local_problem(problem, best, noises, rows)
    table = np.array(
        [
            known.get((place, choice.option), np.zeros_like(base))
            for place, part in enumerate(local.parts)
            for choice in part.choices
        ]
    )
    errors = Interactions(table, base)
    proposed = [descend(local, errors, best, local_rows, most_changes=limit) for limit in _LIMITS]
    new = [one for one in dict.fromkeys(proposed) if one != best]
    if len(new) > ledger.left:
        return None
    values = ledger.values(new)
    if not values or min(values) >= BETTER * ledger.value(best):
        return best
    return new[values.index(min(values))]


def _of(ledger: Ledger, best: Assignment, move: Move) -> np.ndarray:
    errors = ledger.errors(with_moves(best, [move]))
    assert errors is not None
    return errors


def _elsewhere(problem: Problem, best: Assignment, singles: Interactions) -> dict[Move, np.ndarray]:
    """Changes of errors by all moves, as they are where everything else is float."""
    found: dict[Move, np.ndarray] = {}
    row = 0
    for place, (part, option) in enumerate(zip(problem.parts, best, strict=True)):
        here = row + [choice.option for choice in part.choices].index(option)
        for number, choice in enumerate(part.choices):
            if choice.option != option:
                found[place, choice.option] = singles.errors[row + number] - singles.errors[here]
        row += len(part.choices)
    return found
