"""The next assignment from what single changes cost where the best one holds: an integer program, then swaps one by one.

For measurements that tell noise alone. Marginals have the interactions with what stays in them, not those among what
changes together; therefore only some changes are allowed at once, fewer where the proposal is no better than what was, more
where it is: a trust region (Conn, Gould, Toint 2000) over integers.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Final

from qdx.search.ledger import BETTER, Ledger
from qdx.search.local import Move, local_problem, with_moves
from qdx.search.problem import Assignment, Part, Problem
from qdx.search.solve import Objective, Row, solve

__all__ = ["by_marginals"]

_SWAPS: Final = 96
"""How many swaps are measured where the integer program proposes nothing better."""
_MARGINAL: Final = Objective({"marginal": 1.0})


def by_marginals(
    problem: Problem,
    best: Assignment,
    moves: Sequence[Move],
    rows: Sequence[Row],
    ledger: Ledger,
    radius: int,
) -> tuple[Assignment, int] | None:
    """Returns a better assignment, or the same where none was found, and how many changes may be made from it.

    Args:
        problem: What there is to choose.
        best: The assignment; it was measured, and so was every move from it.
        moves: Single changes of it.
        rows: Bounds.
        ledger: Measures.
        radius: How many changes may be made at once.

    Returns:
        None where more would have to be measured than may be.
    """
    here = ledger.value(best)
    marginals = {move: ledger.value(with_moves(best, [move])) - here for move in moves}
    following, radius = _stepped(problem, best, marginals, rows, ledger, radius)
    if following == best:
        swaps = _swaps(problem, best, marginals, rows)
        if len(swaps) > ledger.left:
            return None
        following = _swapped(best, swaps, ledger)
    return following, radius


def _stepped(
    problem: Problem,
    best: Assignment,
    marginals: Mapping[Move, float],
    rows: Sequence[Row],
    ledger: Ledger,
    radius: int,
) -> tuple[Assignment, int]:
    noises = {move: {"marginal": value} for move, value in marginals.items()}
    local, local_rows = local_problem(problem, best, noises, rows)
    changes_of = tuple(_changes(part, o) for part, o in zip(local.parts, best, strict=True))
    radius = max(radius, 2)
    while radius and ledger.left > 0:
        near = Row("changes", changes_of, radius)
        proposed = solve(local, _MARGINAL, [*local_rows, near])
        changes = sum(a != b for a, b in zip(proposed, best, strict=True))
        if not changes:
            break
        (value,) = ledger.values([proposed])
        if value < BETTER * ledger.value(best):
            return proposed, max(radius, 2 * changes)
        radius = changes // 2
    return best, radius


def _swaps(
    problem: Problem, best: Assignment, marginals: Mapping[Move, float], rows: Sequence[Row]
) -> list[Assignment]:
    """Single changes and swaps of two parts within the bounds, those with the least sum of marginals first."""
    places = [_place(part, option) for part, option in zip(problem.parts, best, strict=True)]
    left = [row.most - row.total(places) for row in rows]
    moves = sorted(marginals, key=lambda move: (marginals[move], move))
    to = {move: _place(problem.parts[move[0]], move[1]) for move in moves}

    def fits(*chosen: Move) -> bool:
        changed = {move[0]: to[move] for move in chosen}
        return all(row.more(places, changed) <= most for row, most in zip(rows, left, strict=True))

    found: list[tuple[float, tuple[Move, ...]]] = [(marginals[m], (m,)) for m in moves if fits(m)]
    found += [
        (marginals[a] + marginals[b], (a, b))
        for a, b in itertools.combinations(moves, 2)
        if a[0] != b[0] and fits(a, b)
    ]
    found.sort()
    return [with_moves(best, chosen) for _, chosen in found[:_SWAPS]]


def _swapped(best: Assignment, swaps: Sequence[Assignment], ledger: Ledger) -> Assignment:
    """The best swap if it is better."""
    values = ledger.values(swaps)
    if not values or min(values) >= BETTER * ledger.value(best):
        return best
    return swaps[values.index(min(values))]


def _place(part: Part, option: int) -> int:
    return [choice.option for choice in part.choices].index(option)


def _changes(part: Part, option: int) -> tuple[float, ...]:
    return tuple(float(choice.option != option) for choice in part.choices)
