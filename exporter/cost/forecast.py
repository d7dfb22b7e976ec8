"""How long work takes: told from the first measured units, corrected with each further one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from qdx.exporter.errors import InternalError
from qdx.exporter.text.words import about, memory

__all__ = ["Estimate", "Forecast"]

_RECENT: Final = 0.25
"""Share of the latest duration in the mean of its kind, once there are several: a machine's pace changes."""


@dataclass(frozen=True)
class Estimate:
    """What work is about to take.

    Attributes:
        seconds: How long, from now on; None where nothing is measured yet.
        memory_bytes: What it holds at most; None where nobody knows.
        done: Units done.
        total: Units in all.
    """

    seconds: float | None
    memory_bytes: int | None
    done: int
    total: int

    def words(self) -> str:
        """For people, such as `about 18 min, 2.1 GB of memory`."""
        parts = ["a time not known yet" if self.seconds is None else about(self.seconds)]
        if self.memory_bytes is not None:
            parts.append(f"{memory(self.memory_bytes)} of memory")
        return ", ".join(parts)


@dataclass
class _Kind:
    """Units of one kind: how many there are, and what they take."""

    total: int
    relative: float
    done: int = 0
    measured: int = 0
    mean: float | None = None

    def take(self, seconds: float) -> None:
        self.done += 1
        self.measured += 1
        before = 0.0 if self.mean is None else self.mean
        self.mean = before + max(_RECENT, 1 / self.measured) * (seconds - before)


@dataclass
class Forecast:
    """The time that is left of work in units of several kinds.

    Args:
        totals: How many units of each kind there are in all, such as `{"observed call": 80, "plain call": 320}`.
        relative: What a unit of a kind takes, in relation to the other kinds; 1 for those not named. It
            speaks for a kind of which none is measured yet: multiply-accumulates do well.
        workers: How many units are under way at a time.
        memory_bytes: What the work holds at most; None where nobody knows.
    """

    totals: Mapping[str, int]
    relative: Mapping[str, float] = field(default_factory=dict)
    workers: int = 1
    memory_bytes: int | None = None
    _kinds: dict[str, _Kind] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._kinds = {
            kind: _Kind(total, self.relative.get(kind, 1.0)) for kind, total in self.totals.items()
        }
        unknown = self.relative.keys() - self._kinds.keys()
        if unknown or self.workers < 1 or min(self.totals.values(), default=0) < 0:
            raise InternalError(f"no forecast of {dict(self.totals)} by {self.workers} workers")

    def measured(self, kind: str, seconds: float) -> None:
        """Takes one unit that is done.

        Args:
            kind: One of `totals`.
            seconds: What the unit itself took, whatever ran beside it.

        Raises:
            InternalError: There is no such kind, or it took no possible time.
        """
        if kind not in self._kinds or not 0 <= seconds < math.inf:
            raise InternalError(
                f"a unit `{kind}` of {seconds} s, expected one of {list(self._kinds)}"
            )
        self._kinds[kind].take(seconds)

    def done_before(self, kind: str, n: int) -> None:
        """Takes units that are done already, in what time is not known: those of a checkpoint."""
        self._kinds[kind].done += n

    def now(self) -> Estimate:
        """What the rest takes, by what is measured so far."""
        kinds = self._kinds.values()
        done = sum(kind.done for kind in kinds)
        return Estimate(self._seconds_left(), self.memory_bytes, done, sum(self.totals.values()))

    def _seconds_left(self) -> float | None:
        pace = self._seconds_for_one()
        seconds = 0.0
        for kind in self._kinds.values():
            left = max(kind.total - kind.done, 0)
            if left and kind.mean is None and pace is None:
                return None
            each = kind.relative * (pace or 0.0) if kind.mean is None else kind.mean
            seconds += left * each / self.workers
        return seconds

    def _seconds_for_one(self) -> float | None:
        """Seconds of a unit of relation 1, by the kinds that are measured."""
        found = [
            (kind.mean, kind.relative)
            for kind in self._kinds.values()
            if kind.mean is not None and kind.relative > 0
        ]
        # Large units tell more than small ones, whose time is spent on other things than arithmetic.
        return sum(mean for mean, _ in found) / sum(own for _, own in found) if found else None
