"""One place for everything that the sample scripts say while they run."""

import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

CONSOLE = Console(highlight=False)


def say(text: str) -> None:
    """Writes one line, above the bar if one is drawn.

    Args:
        text: The line.
    """
    CONSOLE.print(text, markup=False, soft_wrap=True)


class Steps:
    """Counts through steps: a bar on a terminal, a line every so often elsewhere."""

    def __init__(self, what: str, total: int, start: int = 0, every_s: float = 20.0) -> None:
        """Prepares the count.

        Args:
            what: The word shown before the count.
            total: Number of the step after the last.
            start: Number of the first step.
            every_s: Seconds between two plain lines.
        """
        self.what, self.total, self.start, self.every_s = what, total, start, every_s
        self.note = ""

    def __iter__(self) -> Iterator[int]:
        """Yields the step numbers ``start`` to ``total - 1``."""
        if CONSOLE.is_terminal:
            yield from self._with_bar()
        else:
            yield from self._with_lines()

    def _with_bar(self) -> Iterator[int]:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=CONSOLE) as bar:
            task = bar.add_task(self.what, total=self.total, completed=self.start, note="")
            for step in range(self.start, self.total):
                yield step
                bar.update(task, advance=1, note=self.note)

    def _with_lines(self) -> Iterator[int]:
        begun = last = time.monotonic()
        for step in range(self.start, self.total):
            yield step
            now = time.monotonic()
            if now - last >= self.every_s or step + 1 == self.total:
                last = now
                say(f"{self.what} {step + 1}/{self.total} {now - begun:.0f}s {self.note}")
