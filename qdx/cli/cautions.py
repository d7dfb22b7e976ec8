"""Warnings of qdx on standard error, each once in a command, whatever is asked of other warnings."""

from __future__ import annotations

import warnings
from contextvars import ContextVar
from typing import Final, TextIO

from qdx.cli.output import alert
from qdx.exporter.errors import QdxWarning

__all__ = ["is_shown", "show"]

_shown: Final[ContextVar[frozenset[str]]] = ContextVar("shown", default=frozenset())


def show() -> None:
    """Prints warnings of qdx from now on, until the context of `warnings.catch_warnings` ends."""
    _shown.set(frozenset())
    usual = warnings.showwarning

    def show_one(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if not issubclass(category, QdxWarning):
            usual(message, category, filename, lineno, file, line)
            return
        text = str(message)
        if not is_shown(text):
            _shown.set(_shown.get() | {text})
            alert(f"warning: {text}")

    warnings.simplefilter("always", QdxWarning)
    warnings.showwarning = show_one


def is_shown(text: str) -> bool:
    """Whether this command has printed a warning."""
    return text in _shown.get()
