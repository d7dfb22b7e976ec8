"""A few words in colour on a terminal; all of them can be read without."""

from __future__ import annotations

import os
import re
from typing import Final, TextIO

__all__ = ["NO_CURSOR", "painted"]

NO_CURSOR: Final = frozenset({"", "dumb", "unknown"})
"""Terminals, by TERM, that show no colours, and on which nothing can be drawn anew in its place."""
_RED: Final = "31"
_GREEN: Final = "32"
_YELLOW: Final = "33"
_WORDS: Final = {
    _RED: re.compile(r"^error(?=: )|\bFAILED\b|^a gate failed$", re.MULTILINE),
    _YELLOW: re.compile(r"^warning(?=: )", re.MULTILINE),
    _GREEN: re.compile(r"^every gate holds$", re.MULTILINE),
}


def painted(text: str, stream: TextIO) -> str:
    """Returns text for a stream: faults, warnings and verdicts in colour where it is a terminal that shows them.

    Nothing is coloured where `$NO_COLOR` is set (https://no-color.org), and nothing for files and pipes, whatever is set.
    """
    if os.environ.get("NO_COLOR") or not stream.isatty():
        return text
    if os.environ.get("TERM", "").lower() in NO_CURSOR:
        return text
    for colour, words in _WORDS.items():
        text = words.sub(f"\x1b[{colour}m\\g<0>\x1b[0m", text)
    return text
