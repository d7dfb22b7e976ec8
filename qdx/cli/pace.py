"""One task under way: what is done of it, since when, and how long the rest takes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from qdx.exporter.text.words import about, duration

__all__ = ["Pace"]


@dataclass
class Pace:
    """A task's counts and moments; moments are seconds of one clock.

    Attributes:
        name: What is done.
        total: How many units there are; None where nobody knows.
        unit: What is counted, in the plural; may be empty.
        began: When.
        done: How many units are done.
        advanced: When the last of them was done.
    """

    name: str
    total: int | None
    unit: str
    began: float
    done: int = 0
    advanced: float = field(init=False)
    _ends: float | None = field(default=None, init=False)
    _unknown: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.advanced = self.began

    def advance(self, n: int, now: float) -> str:
        """Counts `n` more units and returns a line that says how long they took."""
        took, self.advanced = now - self.advanced, now
        self.done += n
        return f"{self.name}: {self._count()}, {duration(took)}"

    def expect(self, seconds_left: float, now: float) -> None:
        """Takes what the caller knows; with NaN or infinity nobody does, and the pace so far tells nothing."""
        self._unknown = not math.isfinite(seconds_left)
        self._ends = None if self._unknown else now + seconds_left

    def seconds_left(self, now: float) -> float | None:
        """How long the rest takes; None where nothing tells.

        From what the caller said, or from the mean pace of the units so far.
        """
        if self._ends is not None:
            return max(self._ends - now, 0.0)
        if self._unknown or not self.done or self.total is None or self.done >= self.total:
            return None
        mean = (self.advanced - self.began) / self.done
        under_way = min(now - self.advanced, mean)  # the unit under way counts as far as one takes
        return mean * (self.total - self.done) - under_way

    def line(self, now: float) -> str:
        """How far it has come, such as `calibrating: 23 of 80 calls, 4 min 10 s gone, about 10 min left`."""
        parts = [] if self.total is None and not self.done else [self._count()]
        parts.append(f"{duration(now - self.began)} gone")
        left = self.seconds_left(now)
        if left is not None:
            parts.append(f"{about(left)} left")
        return f"{self.name}: {', '.join(parts)}"

    def closing_line(self, now: float) -> str:
        """What was done in which time, such as `calibrating: 80 of 80 calls in 14 min 2 s`."""
        count = "" if self.total is None and not self.done else f"{self._count()} in "
        return f"{self.name}: {count}{duration(now - self.began)}"

    def _count(self) -> str:
        total = "" if self.total is None else f" of {self.total}"
        unit = self.unit or ("done" if self.total is None else "")
        return f"{self.done}{total} {unit}".rstrip()
