"""Telling how far a long task has come, without knowing who listens."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Final, Protocol

__all__ = ["SILENT", "Progress", "Task", "tell_nobody"]


def tell_nobody(*_: object) -> None:
    """Takes what would be told of work that nobody waits for."""


class Task(Protocol):
    """One task under way."""

    def advance(self, n: int = 1) -> None:
        """Reports that `n` more of its units are done."""

    def expect(self, seconds_left: float) -> None:
        """Says how long the rest takes, where the caller knows better than the pace of the units tells.

        Units of several kinds take different times, for example. It holds until it is said again.

        Args:
            seconds_left: From now on, in seconds; NaN or infinity where nobody knows.
        """


class Progress(Protocol):
    """Where tasks report to.

    Threads may share it. A forked child must not touch it: its parent reports for it.
    """

    def task(
        self, name: str, total: int | None = None, *, unit: str = ""
    ) -> AbstractContextManager[Task]:
        """Begins a task; leaving the context ends it, finished or not.

        Args:
            name: What is done, such as `trace unet`.
            total: How many units there are; None where nobody knows.
            unit: What is counted, in the plural, such as `calls`; empty where the name says it.
        """

    def say(self, text: str) -> None:
        """Announces something for a person to read, such as an estimate."""


class _Silence:
    """A task, and a place to report to, that tell nobody."""

    def __repr__(self) -> str:
        return "SILENT"

    def advance(self, n: int = 1) -> None:
        """Does nothing."""

    def expect(self, seconds_left: float) -> None:
        """Does nothing."""

    def task(
        self,
        name: str,  # noqa: ARG002
        total: int | None = None,  # noqa: ARG002
        *,
        unit: str = "",  # noqa: ARG002
    ) -> AbstractContextManager[Task]:
        """Returns a task that does nothing."""
        return nullcontext(self)

    def say(self, text: str) -> None:
        """Does nothing."""


SILENT: Final[Progress] = _Silence()
