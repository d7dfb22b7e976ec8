"""The problem near an assignment: which options are next, and what remains to choose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from qdx.search.problem import Assignment, Choice, Problem
from qdx.search.solve import Row

__all__ = ["Move", "local_problem", "neighbours", "with_moves"]

Move = tuple[int, int]
"""A part's place, and the option that it changes to."""


def neighbours(problem: Problem, assignment: Assignment) -> tuple[Move, ...]:
    """Returns the changes of one part to the next cheaper and the next dearer option.

    What is next is told by bytes, and by noise where they cost the same.
    """
    found = []
    for place, (part, option) in enumerate(zip(problem.parts, assignment, strict=True)):
        ordered = sorted(part.choices, key=_size)
        here = [choice.option for choice in ordered].index(option)
        found += [
            (place, ordered[next_].option)
            for next_ in (here - 1, here + 1)
            if 0 <= next_ < len(ordered)
        ]
    return tuple(found)


def with_moves(assignment: Assignment, moves: Sequence[Move]) -> Assignment:
    """Returns an assignment with some parts changed."""
    changed = list(assignment)
    for place, option in moves:
        changed[place] = option
    return tuple(changed)


def local_problem(
    problem: Problem,
    best: Assignment,
    noises: Mapping[Move, Mapping[str, float]],
    rows: Sequence[Row],
) -> tuple[Problem, list[Row]]:
    """Returns the problem of an assignment's options and some moves from it, and bounds with the same choices left.

    Args:
        problem: The whole.
        best: The assignment; what it has counts no noise.
        noises: Of the moves that remain; others are no choice.
        rows: Bounds of the whole.
    """
    parts, kept = [], []
    for place, (part, option) in enumerate(zip(problem.parts, best, strict=True)):
        places = [
            k
            for k, choice in enumerate(part.choices)
            if choice.option == option or (place, choice.option) in noises
        ]
        choices = tuple(
            replace(part.choices[k], noise=noises.get((place, part.choices[k].option), _Nothing))
            for k in places
        )
        parts.append(replace(part, choices=choices))
        kept.append(places)
    less = [
        replace(
            row,
            values=tuple(
                tuple(values[k] for k in places)
                for values, places in zip(row.values, kept, strict=True)
            ),
            changes=None if row.changes is None else row.changes.kept(kept),
        )
        for row in rows
    ]
    return replace(problem, parts=tuple(parts)), less


class _NoNoise(dict[str, float]):
    """Zero by any name."""

    def __missing__(self, name: str) -> float:
        return 0.0

    def __contains__(self, name: object) -> bool:
        return True


_Nothing = _NoNoise()


def _size(choice: Choice) -> tuple[float, float, int]:
    return choice.costs.get("bytes", 0.0), -choice.noise["prediction"], choice.option
