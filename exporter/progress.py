"""Telling how far a long task has come, without knowing who listens."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Final, Protocol

__all__ = ["SILENT", "Progress", "Task"]


class Task(Protocol):
    """One task under way."""

    def advance(self, n: int = 1) -> None:
        """Reports that `n` more of its units are done."""


class Progress(Protocol):
    """Where tasks report to."""

    def task(self, name: str, total: int | None = None) -> AbstractContextManager[Task]:
        """Begins a task; leaving the context ends it, finished or not.

        Args:
            name: What is done, such as `trace unet`.
            total: How many units there are; None where nobody knows.
        """


class _Silence:
    """A task, and a place to report to, that tell nobody."""

    def advance(self, n: int = 1) -> None:
        """Does nothing."""

    def task(self, name: str, total: int | None = None) -> AbstractContextManager[Task]:  # noqa: ARG002
        """Returns a task that does nothing."""
        return nullcontext(self)


SILENT: Final[Progress] = _Silence()
