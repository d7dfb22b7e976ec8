"""The next step where a pipeline refuses a size: the nearest ones that it takes."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["size_hint"]

_DIVISIBLE: Final = re.compile(r"divisible by (\d{1,4})\D+?(\d{1,5})(?:\D+?(\d{1,5}))?(?:\D|$)", re.ASCII)  # fmt: skip
_NAMES: Final = ("height", "width")


def size_hint(message: str) -> str | None:
    """Returns what to give instead of sizes that are no multiples; None where a message is about something else.

    >>> size_hint("`height` and `width` have to be divisible by 8 but are 65 and 64.")
    'give multiples of 8 pixels, such as height 64 and width 64'

    Args:
        message: Of the pipeline's own check.
    """
    found = _DIVISIBLE.search(message)
    if found is None or not any(name in message for name in _NAMES):
        return None
    unit = int(found[1])
    if unit == 0:
        return None
    sizes = [int(size) for size in found.groups()[1:] if size is not None]
    nearest = [max(unit, round(size / unit) * unit) for size in sizes]
    named = [f"{name} {size}" for name, size in zip(_NAMES, nearest, strict=False)]
    return f"give multiples of {unit} pixels, such as {' and '.join(named)}"
