"""SIGTERM and Ctrl+C: the command unwinds from wherever it is, and cleans up undisturbed.

Python raises what a signal's handler raises in whatever code happens to run. In a destructor or the callback of a weak
reference, of which tracing runs thousands, it is dropped; in the bookkeeping of a library another error may take its
place, which somebody may handle. So it is raised again until the command unwinds, and once a signal has arrived the
command has been interrupted, however it ends.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Final

__all__ = ["Terminated", "install", "interruptible"]

_AGAIN_S: Final = 0.1


class Terminated(BaseException):
    """SIGTERM arrived: unwind, so that nothing partial stays behind."""


_RAISED: Final[dict[int, type[BaseException]]] = {
    signal.SIGINT: KeyboardInterrupt,
    signal.SIGTERM: Terminated,
}


@dataclass
class _State:
    """Whether a command runs, and the first signal that has arrived meanwhile."""

    running: bool = False
    arrived: int | None = None


_state: Final = _State()


def install() -> None:
    """Lets both signals interrupt the commands of this process."""
    signal.signal(signal.SIGALRM, _on_timer)
    signal.signal(signal.SIGTERM, _on_signal)
    # A shell's background job ignores Ctrl+C from the start.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _on_signal)
    sys.unraisablehook = _on_dropped


@contextmanager
def interruptible() -> Iterator[None]:
    """The command runs within.

    Raises:
        KeyboardInterrupt, Terminated: If a signal arrived, instead of whatever came of the command.
    """
    _state.running, _state.arrived = True, None
    try:
        yield
    finally:
        _end()


def _end() -> None:
    """The command is over; raises what a signal stands for that has arrived."""
    _state.running = False  # first: whatever the timer finds from here on, it raises nothing
    if _state.arrived is not None:  # else the timer is somebody else's
        signal.setitimer(signal.ITIMER_REAL, 0)
        raise _RAISED[_state.arrived]


def _on_signal(number: int, _frame: FrameType | None) -> None:
    if not _state.running:  # there is nothing to clean up
        sys.exit(128 + number)
    if _state.arrived is None:
        _state.arrived = number
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_S, _AGAIN_S)
    _raise_unless_unwinding()


def _on_timer(_number: int, _frame: FrameType | None) -> None:
    _raise_unless_unwinding()


def _raise_unless_unwinding() -> None:
    """Raises what the signal stands for, but not in the midst of cleaning up: a second signal often follows at once."""
    if _state.arrived is None or not _state.running:
        return
    handled = sys.exception()
    while handled is not None:
        if isinstance(handled, tuple(_RAISED.values())):
            return
        handled = handled.__context__
    raise _RAISED[_state.arrived]


def _on_dropped(dropped: sys.UnraisableHookArgs) -> None:
    """Says nothing of what is raised again."""
    if not issubclass(dropped.exc_type, tuple(_RAISED.values())):
        sys.__unraisablehook__(dropped)
