"""Globs that say the same as lists of names of operations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from typing import Final

from qdx.exporter.plan.schema.rule import matcher

__all__ = ["covering", "globs_of"]

_NUMBERS_MOST: Final = 3
"""Of a name with more numbers, all of them are replaced or none."""
_ENDS_MOST: Final = 4


def globs_of(name: str) -> tuple[str, ...]:
    """Returns globs that a person would write for a name and others like it, the narrowest first.

    >>> globs_of("up.1.conv")
    ('up.1.conv', 'up.*.conv', '*.1.conv', 'up.1.*', '*.conv', 'up.*')
    """
    parts = name.split(".")
    numbers = [place for place, part in enumerate(parts) if part.isdigit()]
    ways = product((False, True), repeat=len(numbers)) if len(numbers) <= _NUMBERS_MOST else ()
    changed = [{p for p, is_open in zip(numbers, way, strict=True) if is_open} for way in ways]
    changed = changed or [set(), set(numbers)]
    found = [
        ".".join("*" if p in places else part for p, part in enumerate(parts)) for places in changed
    ]
    longest = min(len(parts) - 1, _ENDS_MOST)
    for length in range(longest, 0, -1):
        found.append(".".join(["*", *parts[-length:]]))
        found.append(".".join([*parts[:length], "*"]))
    return tuple(dict.fromkeys(found))


def covering(names: Sequence[str], allowed: Iterable[str], known: Sequence[str]) -> tuple[str, ...]:
    """Returns few globs that match all of some names, and of the others only those that may be matched.

    Args:
        names: What must be matched.
        allowed: What may be matched beside.
        known: All names.
    """
    fine = set(names) | set(allowed)
    wanted = set(names)
    pure: dict[str, set[str]] = {}
    for glob in dict.fromkeys(glob for name in names for glob in globs_of(name)):
        test = matcher((glob,))
        hit = {name for name in known if test(name)}
        if hit <= fine:
            pure[glob] = hit & wanted
    chosen: list[str] = []
    left = set(wanted)
    order = {glob: place for place, glob in enumerate(pure)}
    while left:
        # Of globs that match as much, the narrowest: what a person reads names what is meant.
        best = min(pure, key=lambda glob: (-len(pure[glob] & left), -len(glob), order[glob]))
        chosen.append(best)
        left -= pure[best]
    return tuple(sorted(chosen))
