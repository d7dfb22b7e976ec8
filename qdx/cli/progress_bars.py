"""Progress as bars of rich, on a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.progress import Task as RichTask
from rich.text import Text

from qdx.cli.output import printable
from qdx.cli.pace import Pace
from qdx.cli.ticker import DISPLAY
from qdx.exporter.progress import Task

__all__ = ["REFRESH_SECONDS", "Bars"]

REFRESH_SECONDS: Final = 0.25
_SPEED_SECONDS: Final = 600.0
"""Over how long the pace is averaged: a call of a large component takes half a minute."""


class _TimeLeft(TimeRemainingColumn):
    """The time left: what the task said, otherwise what its pace tells."""

    def render(self, task: RichTask) -> Text:
        ends = task.fields["ends"]
        if ends is None:
            return super().render(task)
        left = timedelta(seconds=max(0, round(ends - time.monotonic())))
        return Text(str(left), style="progress.remaining")


class Bars:
    """Shows tasks as bars on standard error.

    Bars are drawn anew by `tick` alone and by what changes them, each time under `DISPLAY`: no thread of rich's own may
    hold a lock while this process forks.

    Args:
        verbose: Whether each unit and each end of a task has its line above the bars.
    """

    def __init__(self, *, verbose: bool = False) -> None:
        self._verbose = verbose
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}", markup=False),
            TimeElapsedColumn(),
            _TimeLeft(),
        )
        self.bars = RichProgress(
            *columns,
            console=Console(stderr=True),
            transient=True,
            auto_refresh=False,
            speed_estimate_period=_SPEED_SECONDS,
        )

    @contextmanager
    def task(self, name: str, total: int | None = None, *, unit: str = "") -> Iterator[Task]:
        """Begins a task."""
        pace = Pace(name, total, unit, time.monotonic())
        with DISPLAY:
            task_id = self.bars.add_task(printable(name), total=total, unit=unit, ends=None)
            self.bars.refresh()
        try:
            yield _BarsTask(self, pace, task_id)
        finally:
            with DISPLAY:
                self.bars.remove_task(task_id)
                if self._verbose:
                    self._print(pace.closing_line(time.monotonic()))

    def say(self, text: str) -> None:
        """Announces something, above the bars."""
        with DISPLAY:
            self._print(text)

    def advance(self, pace: Pace, task_id: TaskID, n: int) -> None:
        """Counts units of a task."""
        with DISPLAY:
            line = pace.advance(n, time.monotonic())
            self.bars.advance(task_id, n)
            if self._verbose:
                self._print(line)

    def expect(self, pace: Pace, task_id: TaskID, seconds_left: float) -> None:
        """Takes what is known of the rest of a task."""
        with DISPLAY:
            now = time.monotonic()
            pace.expect(seconds_left, now)
            left = pace.seconds_left(now)
            self.bars.update(task_id, ends=None if left is None else now + left)

    def tick(self) -> None:
        """Draws the bars; the caller holds `DISPLAY`."""
        self.bars.refresh()

    def _print(self, text: str) -> None:
        self.bars.console.print(printable(text), markup=False, highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class _BarsTask:
    """One bar."""

    bars: Bars
    pace: Pace
    task_id: TaskID

    def advance(self, n: int = 1) -> None:
        self.bars.advance(self.pace, self.task_id, n)

    def expect(self, seconds_left: float) -> None:
        self.bars.expect(self.pace, self.task_id, seconds_left)
