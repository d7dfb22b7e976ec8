"""Jobs in parts: what is not known yet is computed, by as many processes as are wanted, and kept as it comes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from qdx.sweep.elsewhere import Request
from qdx.sweep.workers import Tell, Words, one_thread, run_parts

if TYPE_CHECKING:
    from qdx.exporter.progress import Progress
    from qdx.sweep.elsewhere import Elsewhere
    from qdx.sweep.results import Outcome, Results

__all__ = ["Compute", "Found", "Sent", "Shown", "run_jobs", "run_shown"]

Found = Callable[[str, "Outcome"], None]
"""Takes the result of a job, and its key."""
Compute = Callable[[int, Sequence[str], Found], None]
"""Computes jobs of a part: its number, their keys, and what takes each result. What it finds depends on the jobs alone."""


@dataclass(frozen=True)
class Sent:
    """How jobs are computed without the memory of this process.

    Attributes:
        elsewhere: What computes them.
        requests: Asks for some jobs of a part: its number and their keys; as several requests where they are many.
    """

    elsewhere: Elsewhere
    requests: Callable[[int, Sequence[str]], Sequence[Request]]


@dataclass(frozen=True)
class Shown:
    """How work is shown while it goes on.

    Attributes:
        progress: Told of every job.
        title: What is done.
        unit: What jobs are called.
    """

    progress: Progress
    title: str
    unit: str = "measurements"


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
    sent: Sent | None = None,
) -> None:
    """Computes every job that has no result yet, each with one thread.

    The results do not depend on the number of workers, on the order of the parts, on what was known before, or on where
    they are computed.

    Args:
        parts: Keys of the jobs of each part, which share work. A job that comes twice is computed once.
        compute: Computes some jobs of one part.
        results: Knows what is done, and takes what is found.
        words: What messages call a part.
        workers: How many parts at a time.
        tell: Told of every job that is done: `part`, `done` keys and the `seconds` that they took.
        sent: Where other machines compute them, how; `compute` and `workers` do not count then.

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
    if sent is not None:
        _run_elsewhere(missing, sent, results, words=words, tell=tell)
        return

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


def run_shown(
    parts: Sequence[Sequence[str]],
    compute: Compute,
    results: Results,
    *,
    words: Words,
    workers: int,
    shown: Shown,
    sent: Sent | None = None,
) -> None:
    """Computes every job that has no result yet, and shows how many are done.

    Args:
        parts: As for `run_jobs`.
        compute: Likewise.
        results: Likewise.
        words: Likewise.
        workers: Likewise.
        shown: How it is shown.
        sent: As for `run_jobs`.

    Raises:
        QdxError, StorageError: As for `run_jobs`.
    """
    missing = {key for keys in parts for key in keys} - results.known.keys()
    with shown.progress.task(shown.title, len(missing), unit=shown.unit) as task:
        run_jobs(
            parts,
            compute,
            results,
            words=words,
            workers=workers,
            tell=lambda message: task.advance(len(message["done"])),
            sent=sent,
        )


def _run(part: int, keys: Sequence[str], compute: Compute, results: Results, tell: Tell) -> None:
    keeper = _Keeper(results, tell)
    try:
        compute(part, keys, lambda key, outcome: keeper.found(part, {key: outcome}))
    finally:  # whatever ends it, what was found stays
        keeper.keep()


def _run_elsewhere(
    missing: Sequence[Sequence[str]], sent: Sent, results: Results, *, words: Words, tell: Tell
) -> None:
    keeper = _Keeper(results, tell)
    requests = [
        one for part, keys in enumerate(missing) if keys for one in sent.requests(part, keys)
    ]
    try:
        sent.elsewhere.run(
            requests,
            lambda request, found, seconds: keeper.found(request.part, found, seconds),
            words=words,
        )
    finally:
        keeper.keep()


class _Keeper:
    """Writes results now and then, and tells of them.

    Args:
        results: Takes them.
        tell: Told of them.
    """

    def __init__(self, results: Results, tell: Tell) -> None:
        self._results = results
        self._tell = tell
        self._fresh: dict[str, Outcome] = {}
        self._told: dict[int, tuple[list[str], float]] = {}
        self._kept_s = self._heard_s = time.monotonic()

    def found(self, part: int, found: Mapping[str, Outcome], seconds: float | None = None) -> None:
        """Takes results of a part, and what they took; the time since the last ones where nobody says.

        Raises:
            InternalError: A job has two results that differ.
        """
        known = self._fresh.keys() | self._results.known.keys()
        twice = {key: outcome for key, outcome in found.items() if key in known}
        if twice:
            self.keep()
            self._results.add(twice)  # which compares
        now = time.monotonic()
        spent = now - self._heard_s if seconds is None else seconds
        self._heard_s = now
        fresh = {key: outcome for key, outcome in found.items() if key not in known}
        done, before = self._told.get(part, ([], 0.0))
        self._told[part] = ([*done, *fresh], before + spent)
        self._fresh.update(fresh)
        if now - self._kept_s >= _KEEP_EVERY_S:
            self.keep()

    def keep(self) -> None:
        """Writes what came since the last time."""
        self._kept_s = time.monotonic()
        if not self._fresh:
            return
        self._results.add(self._fresh)
        told, self._fresh, self._told = self._told, {}, {}
        for part, (done, seconds) in told.items():
            self._tell({"part": part, "done": sorted(done), "seconds": seconds})
