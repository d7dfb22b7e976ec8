"""What the search is held against: the same options elsewhere, and one option everywhere."""

from __future__ import annotations

import random
from collections.abc import Sequence

from qdx.search.problem import Assignment, Problem
from qdx.search.solve import Row

__all__ = ["permuted", "uniform"]

_TRIES = 200


def permuted(
    problem: Problem, assignment: Assignment, rows: Sequence[Row], *, seed: int, count: int = 3
) -> tuple[Assignment, ...]:
    """Returns assignments with the same options on other parts, drawn at random, each within the bounds.

    Options move among parts that may take both. Where the bounds forbid what was drawn, as large parts take what small ones had,
    parts take their next cheaper option in random order until the bounds are kept.

    Args:
        problem: What there is to choose.
        assignment: Whose options are permuted.
        rows: The bounds.
        seed: Of the draws.
        count: How many.
    """
    generator = random.Random(seed)  # noqa: S311 - a control, no secret
    found: list[Assignment] = []
    for _ in range(_TRIES):
        if len(found) == count:
            break
        drawn = _within(problem, _shuffled(problem, assignment, generator), rows, generator)
        if drawn is not None and drawn != assignment and drawn not in found:
            found.append(drawn)
    return tuple(found)


def uniform(problem: Problem, rows: Sequence[Row]) -> tuple[int, Assignment] | None:
    """Returns the one option that all parts which have it take with the least noise within the bounds; None without any.

    Parts that do not have it stay float where they can.
    """
    best: tuple[float, int, Assignment] | None = None
    for option in sorted({choice.option for part in problem.parts for choice in part.choices}):
        assignment = tuple(
            option if any(c.option == option for c in part.choices) else part.choices[0].option
            for part in problem.parts
        )
        if option == 0 or not _holds(problem, assignment, rows):
            continue
        noise = problem.noise(assignment)
        if best is None or noise < best[0]:
            best = (noise, option, assignment)
    return None if best is None else (best[1], best[2])


def _shuffled(problem: Problem, assignment: Assignment, generator: random.Random) -> Assignment:
    alike: dict[tuple[int, ...], list[int]] = {}
    for place, part in enumerate(problem.parts):
        alike.setdefault(tuple(c.option for c in part.choices), []).append(place)
    drawn = list(assignment)
    for places in alike.values():
        options = [assignment[place] for place in places]
        generator.shuffle(options)
        for place, option in zip(places, options, strict=True):
            drawn[place] = option
    return tuple(drawn)


def _within(
    problem: Problem, assignment: Assignment, rows: Sequence[Row], generator: random.Random
) -> Assignment | None:
    """The assignment, made cheaper at random places until it keeps the bounds."""
    drawn = list(assignment)
    for _ in range(len(drawn) * 16):
        broken = [row for row in rows if not _kept(problem, tuple(drawn), row)]
        if not broken:
            return _filled(problem, drawn, rows, generator)
        place = generator.randrange(len(drawn))
        values = broken[0].values[place]
        now = values[_place(problem, place, drawn[place])]
        cheaper = [(v, k) for k, v in enumerate(values) if v < now]
        if cheaper:
            drawn[place] = problem.parts[place].choices[max(cheaper)[1]].option
    return None


def _filled(
    problem: Problem, drawn: list[int], rows: Sequence[Row], generator: random.Random
) -> Assignment:
    """With dearer options at random places for as long as the bounds leave room: a control spends what the search may."""
    order = list(range(len(drawn)))
    generator.shuffle(order)
    for place in order:
        if not rows:
            break
        values = rows[0].values[place]
        now = values[_place(problem, place, drawn[place])]
        dearer = [(v, k) for k, v in enumerate(values) if v > now]
        if not dearer:
            continue
        before, drawn[place] = drawn[place], problem.parts[place].choices[min(dearer)[1]].option
        if not _holds(problem, tuple(drawn), rows):
            drawn[place] = before
    return tuple(drawn)


def _place(problem: Problem, place: int, option: int) -> int:
    return [choice.option for choice in problem.parts[place].choices].index(option)


def _kept(problem: Problem, assignment: Assignment, row: Row) -> bool:
    places = [_place(problem, p, option) for p, option in enumerate(assignment)]
    return row.total(places) <= row.most


def _holds(problem: Problem, assignment: Assignment, rows: Sequence[Row]) -> bool:
    return all(_kept(problem, assignment, row) for row in rows)
