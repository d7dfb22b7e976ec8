"""Jobs in parts: what is not known yet is computed, by as many processes as are wanted, and kept as it comes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from qdx.sweep.workers import Tell, Words, one_thread, run_parts

if TYPE_CHECKING:
    from qdx.sweep.results import Outcome, Results

__all__ = ["Compute", "Found", "run_jobs"]

Found = Callable[[str, "Outcome"], None]
"""Takes the result of a job, and its key."""
Compute = Callable[[int, Sequence[str], Found], None]
"""Computes jobs of a part: its number, their keys, and what takes each result. What it finds depends on the jobs alone."""

_KEEP_EVERY_S: Final = 5.0
"""Results are written no more often, so that there are few files; a kill loses so much."""
_REPEATS: Final = 2
"""How often a part is begun again whose process was ended from outside."""


def run_jobs(
    parts: Sequence[Sequence[str]],
    compute: Compute,
    results: Results,
    *,
    words: Words,
    workers: int,
    tell: Tell,
) -> None:
    """Computes every job that has no result yet, each with one thread.

    The results do not depend on the number of workers, on the order of the parts, or on what was known before.

    Args:
        parts: Keys of the jobs of each part, which share work. A job that comes twice is computed once.
        compute: Computes some jobs of one part.
        results: Knows what is done, and takes what is found.
        words: What messages call a part.
        workers: How many parts at a time.
        tell: Told of every job that is done: `part`, `done` keys and the `seconds` that they took.

    Raises:
        QdxError: What was raised in a part.
        StorageError: The disk refused, or a process was killed again and again.
    """
    taken: set[str] = set(results.known)
    missing: list[list[str]] = []
    for keys in parts:
        own = [key for key in dict.fromkeys(keys) if key not in taken]
        taken.update(own)
        missing.append(own)

    def run(part: int, tell: Tell) -> None:
        results.reload()  # of an earlier process that was ended in the midst of it
        keys = [key for key in missing[part] if key not in results.known]
        if keys:
            _run(part, keys, compute, results, tell)

    def heard(message: dict[str, Any]) -> None:
        results.reload()
        tell(message)

    with one_thread():
        run_parts(
            [part for part, keys in enumerate(missing) if keys],
            run,
            words=words,
            workers=workers,
            tell=heard,
            repeats=_REPEATS,
        )
    results.reload()


def _run(part: int, keys: Sequence[str], compute: Compute, results: Results, tell: Tell) -> None:
    fresh: dict[str, Outcome] = {}
    began = time.monotonic()

    def keep() -> None:
        nonlocal began
        results.add(fresh)
        now = time.monotonic()
        tell({"part": part, "done": sorted(fresh), "seconds": now - began})
        fresh.clear()
        began = now

    def found(key: str, outcome: Outcome) -> None:
        fresh[key] = outcome
        if time.monotonic() - began >= _KEEP_EVERY_S:
            keep()

    try:
        compute(part, keys, found)
    finally:  # whatever ends it, what was found stays
        if fresh:
            keep()
