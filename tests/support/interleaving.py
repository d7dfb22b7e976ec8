"""One use of a store that stops between two calls to the operating system while another process does all of its own."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator

import pytest

from qdx.bundle import rename

__all__ = ["each_interleaving"]

# Whatever looks at names, or changes what they lead to, comes through one of these.
_CALLS = [
    (os, "lstat"),
    (os, "mkdir"),
    (os, "open"),
    (os, "rmdir"),
    (os, "scandir"),
    (os, "stat"),
    (os, "unlink"),
    (os, "utime"),
    (fcntl, "flock"),
    (rename, "_renameat2"),
]


def each_interleaving(
    prepare: Callable[[], tuple[Callable[[], None], Callable[[], None]]],
) -> Iterator[str]:
    """Runs two functions, the second one before each call of the first in turn.

    Both run in this process, where locks of two descriptors exclude each other as those of two
    processes do; only the process id in hidden names is to differ.

    Args:
        prepare: Gives both, over a new store each time.

    Yields:
        Before which call the second one ran, after both have ended.
    """
    number = 0
    while True:
        first, second = prepare()
        where = _interrupted(first, second, number)
        if where is None:
            assert number, "no call of it was seen"
            return
        yield where
        number += 1


def _interrupted(first: Callable[[], None], second: Callable[[], None], number: int) -> str | None:
    """Runs `first`, and `second` before its call of that number; says which, or None if it makes fewer."""
    seen: list[str] = []
    other_pid = os.getpid() + 1

    with pytest.MonkeyPatch.context() as patch:

        def before(name: str) -> None:
            seen.append(name)
            if len(seen) == number + 1:
                patch.undo()
                with pytest.MonkeyPatch.context() as other:
                    other.setattr(os, "getpid", lambda: other_pid)
                    second()

        for module, name in _CALLS:
            patch.setattr(module, name, _told(getattr(module, name), name, before))
        first()
    return f"call {number}, {seen[number]}" if len(seen) > number else None


def _told(function: Callable, name: str, before: Callable[[str], None]) -> Callable:
    def call(*arguments: object, **named: object) -> object:
        before(name)
        return function(*arguments, **named)

    return call
