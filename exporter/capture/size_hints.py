"""The next step where a pipeline refuses a size: the nearest ones that it takes."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["size_hint"]

_DIVISIBLE: Final = re.compile(r"divisible by (\d{1,4})(?!\d)", re.ASCII)
_FOUND: Final = re.compile(r"\b(?:but (?:are|is)|got)\b(.*)", re.DOTALL)
"""What pipelines write before the sizes that they were given."""
_SIZE: Final = re.compile(r"(?<![\w.])\d{1,5}(?![\w.]*\w)", re.ASCII)
_NAMES: Final = ("height", "width")


def size_hint(message: str) -> str | None:
    """Returns what to give instead of sizes that are no multiples; None where a message is about something else.

    >>> size_hint("`height` and `width` have to be divisible by 8 but are 65 and 64.")
    'give multiples of 8 pixels, such as height 64 and width 64'

    Args:
        message: Of the pipeline's own check.
    """
    found = _DIVISIBLE.search(message)
    words = message.lower()
    names = sorted((one for one in _NAMES if one in words), key=words.index)
    if found is None or not names or "latent" in words or int(found[1]) == 0:
        return None
    unit = int(found[1])
    told = _FOUND.search(message, found.end())
    sizes = [int(size) for size in _SIZE.findall(told[1])] if told else []
    if len(sizes) != len(names):
        return f"give multiples of {unit} pixels"
    nearest = [max(unit, round(size / unit) * unit) for size in sizes]
    named = [f"{name} {size}" for name, size in zip(names, nearest, strict=True)]
    return f"give multiples of {unit} pixels, such as {' and '.join(named)}"
