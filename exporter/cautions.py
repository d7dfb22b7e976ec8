"""What qdx does unasked, said: a Python warning with the way out, which results keep in their notes too."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from qdx.exporter.errors import QdxWarning

__all__ = ["caution", "collected"]

_collecting: Final[ContextVar[tuple[list[str], ...]]] = ContextVar("collecting", default=())


def caution(text: str) -> None:
    """Warns of something that is done unasked; the command line prints it, in Python it is a `QdxWarning`."""
    for found in _collecting.get():
        if text not in found:
            found.append(text)
    warnings.warn(text, QdxWarning, stacklevel=2)


@contextmanager
def collected() -> Iterator[list[str]]:
    """Gives the warnings of a task in a list, which grows while the context lasts; each once."""
    found: list[str] = []
    token = _collecting.set((*_collecting.get(), found))
    try:
        yield found
    finally:
        _collecting.reset(token)
