"""The additive model corrected by what is measured: candidates whole, then changes of the best one in its own context.

Noise of single options adds up where errors are small and have nothing to do with each other. For few bits neither holds. So
candidates of several models are measured whole, and around the best one it is found out what changes of one part do *there*,
all other parts as they are: of all options at once from slopes where gradients go through (`by_slopes`), or else by
measuring the next cheaper and the next dearer one. From these the next assignment is proposed, by the errors where they are
told (`in_context`), by noise alone where they are not or lead no further (`marginals`), and measured. It ends when nothing
proposed is better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qdx.search.by_slopes import Slopes, by_slopes, promising
from qdx.search.in_context import by_errors
from qdx.search.interactions import Interactions
from qdx.search.ledger import Ledger
from qdx.search.local import Move, neighbours, with_moves
from qdx.search.marginals import by_marginals
from qdx.search.problem import Assignment, Problem
from qdx.search.solve import Row

__all__ = ["Refitted", "refit"]


@dataclass(frozen=True)
class Refitted:
    """The best that was measured.

    Attributes:
        assignment: It.
        noise: Its noises, measured.
        start: The name of the candidate from which it came.
        candidates: The objective of each candidate, measured, by name.
        rounds: The objective after each round.
        settled: Whether nothing proposed was better; otherwise the measurements that were allowed are used up.
        measured: How many assignments were measured.
    """

    assignment: Assignment
    noise: Mapping[str, float]
    start: str
    candidates: Mapping[str, float]
    rounds: tuple[float, ...]
    settled: bool
    measured: int


def refit(
    problem: Problem,
    candidates: Mapping[str, Assignment],
    rows: Sequence[Row],
    ledger: Ledger,
    *,
    singles: Interactions | None = None,
    slopes: Slopes | None = None,
) -> Refitted:
    """Returns the best assignment that measuring finds from some candidates.

    Args:
        problem: What there is to choose.
        candidates: Where to begin, by name; each keeps the bounds.
        rows: Bounds of costs. Bounds of noise are kept as the model has them.
        ledger: Measures; what it knows costs nothing.
        singles: Errors of the problem's choices with all else float; None where nobody kept them.
        slopes: Tells first-order changes in context; None where nothing does.
    """
    names = list(candidates)[: max(ledger.left, 1)]
    values = dict(zip(names, ledger.values([candidates[n] for n in names]), strict=True))
    start = min(names, key=lambda name: (values[name], names.index(name)))
    best = candidates[start]
    rounds: list[float] = []
    settled = False
    radius = max(2, len(problem.parts) // 3)
    while not settled:
        told = None
        if singles is not None and slopes is not None and not any(p.steps for p in problem.parts):
            told = slopes(best)
        if told is None or singles is None:
            moves = neighbours(problem, best)
        else:
            better = by_slopes(problem, best, told, rows, ledger, singles)
            if better is None:
                break
            if better != best:
                best = better
                rounds.append(ledger.value(best))
                continue
            moves = promising(problem, best, told, rows, singles)
        new = [one for one in (with_moves(best, [m]) for m in moves) if one not in ledger.known]
        if len(new) > ledger.left:
            break
        ledger.values(new)
        if ledger.errors(best) is not None and told is not None:
            found = by_errors(problem, best, moves, rows, ledger)
            following = None if found is None else (found, radius)
        else:
            following = _following(problem, best, moves, rows, ledger, radius, singles)
        if following is None:
            break
        settled = following[0] == best
        best, radius = following
        rounds.append(ledger.value(best))
    noise = ledger.known[best].noise
    return Refitted(best, noise, start, values, tuple(rounds), settled, len(ledger.known))


def _following(
    problem: Problem,
    best: Assignment,
    moves: Sequence[Move],
    rows: Sequence[Row],
    ledger: Ledger,
    radius: int,
    singles: Interactions | None,
) -> tuple[Assignment, int] | None:
    errors = ledger.errors(best)
    if errors is not None:
        # Those of single options stand beside these where they are of the same calls.
        alike = singles is not None and singles.errors.shape[1] == len(errors)
        found = by_errors(problem, best, moves, rows, ledger, singles=singles if alike else None)
        if found is None or found != best:
            return None if found is None else (found, radius)
    return by_marginals(problem, best, moves, rows, ledger, radius)
