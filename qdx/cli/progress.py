"""Progress bars on a terminal, and nothing elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qdx.exporter.progress import SILENT, Progress, Task

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

__all__ = ["progress_bars"]


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """Shows tasks as bars on standard error while the context lasts, if that is a terminal."""
    if not sys.stderr.isatty():
        yield SILENT
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        yield _Rich(bars)


@dataclass(frozen=True)
class _Rich:
    """Reports to bars of rich."""

    bars: RichProgress

    @contextmanager
    def task(self, name: str, total: int | None = None) -> Iterator[Task]:
        task_id = self.bars.add_task(name, total=total)
        try:
            yield _RichTask(self.bars, task_id)
        finally:
            self.bars.remove_task(task_id)


@dataclass(frozen=True)
class _RichTask:
    """One bar."""

    bars: RichProgress
    task_id: TaskID

    def advance(self, n: int = 1) -> None:
        self.bars.advance(self.task_id, n)
