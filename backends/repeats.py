"""How often an audit runs a model to time its kernels."""

from __future__ import annotations

from typing import Final

__all__ = ["repeats"]

_REPEATS: Final = 2
_LONG_S: Final = 2.0
"""A run that takes as long is not shortened by another program for a moment."""


def repeats(first_s: float) -> int:
    """How many more runs make the times of kernels sure.

    Args:
        first_s: Seconds of the first run.
    """
    return 0 if first_s >= _LONG_S else _REPEATS
