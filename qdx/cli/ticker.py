"""A thread that calls a function again and again while something else works."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

__all__ = ["DISPLAY", "Ticker"]

DISPLAY: Final = threading.Lock()
"""Held while progress is written, and while this process forks: a child never begins with half a line, or with a stream
that another thread of its parent had locked."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=DISPLAY.acquire, after_in_parent=DISPLAY.release, after_in_child=DISPLAY.release
    )


class Ticker:
    """Calls a function every so many seconds, holding `DISPLAY`, while the context lasts.

    Where the function cannot write any more (standard error is closed, its disk full), the calls end and the work
    goes on.

    Args:
        tick: The function.
        seconds: Between two calls.
    """

    def __init__(self, tick: Callable[[], None], seconds: float) -> None:
        self._tick = tick
        self._seconds = seconds
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._work, name="qdx-progress", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._done.wait(self._seconds):
            try:
                with DISPLAY:
                    self._tick()
            except OSError:
                return
            except ValueError:
                if not sys.stderr.closed:
                    raise
                return
