"""Progress as lines, for logs: nothing about what is quick, and never a long silence about what is not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from qdx.cli.output import alert
from qdx.cli.pace import Pace
from qdx.cli.ticker import DISPLAY
from qdx.exporter.progress import Task
from qdx.exporter.text.words import duration

__all__ = ["SILENCE_SECONDS", "Lines"]

SILENCE_SECONDS: Final = 28.0
"""The longest silence. Looked at every second, it gives a line at least every 30 seconds."""


class Lines:
    """Reports to standard error, a line at a time.

    After a silence of some length, a line about the task begun last; at the end of a task that took longer, another.

    Args:
        verbose: Whether each unit and each end of a task has its line.
        silence_seconds: The longest silence.
        clock: Seconds since some moment.
        write: Takes each line.
    """

    def __init__(
        self,
        *,
        verbose: bool = False,
        silence_seconds: float = SILENCE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        write: Callable[[str], None] = alert,
    ) -> None:
        self._verbose = verbose
        self._silence = silence_seconds
        self._clock = clock
        self._write = write
        self._tasks: list[Pace] = []
        self._began = self._spoke = clock()

    @contextmanager
    def task(self, name: str, total: int | None = None, *, unit: str = "") -> Iterator[Task]:
        """Begins a task."""
        pace = Pace(name, total, unit, self._clock())
        with DISPLAY:
            self._tasks.append(pace)
        try:
            yield _LinesTask(self, pace)
        finally:
            with DISPLAY:
                self._tasks.remove(pace)
                now = self._clock()
                if self._verbose or now - pace.began > self._silence:
                    self._say(pace.closing_line(now))

    def say(self, text: str) -> None:
        """Announces something."""
        with DISPLAY:
            self._say(text)

    def advance(self, pace: Pace, n: int) -> None:
        """Counts units of a task."""
        with DISPLAY:
            line = pace.advance(n, self._clock())
            if self._verbose:
                self._say(line)

    def expect(self, pace: Pace, seconds_left: float) -> None:
        """Takes what is known of the rest of a task."""
        with DISPLAY:
            pace.expect(seconds_left, self._clock())

    def tick(self) -> None:
        """Breaks a silence that has become too long; the caller holds `DISPLAY`."""
        now = self._clock()
        if now - self._spoke >= self._silence:
            gone = f"at work: {duration(now - self._began)} gone"
            self._say(self._tasks[-1].line(now) if self._tasks else gone)

    def _say(self, text: str) -> None:
        self._spoke = self._clock()
        self._write(text)


@dataclass(frozen=True)
class _LinesTask:
    """One task."""

    lines: Lines
    pace: Pace

    def advance(self, n: int = 1) -> None:
        self.lines.advance(self.pace, n)

    def expect(self, seconds_left: float) -> None:
        self.lines.expect(self.pace, seconds_left)
