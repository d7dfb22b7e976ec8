"""Foreign text, made safe to show."""

from __future__ import annotations

import html
import re
from typing import Final

__all__ = ["clean", "escaped_html"]

# Control characters but for tabs and line ends, and halves of surrogate pairs.
_CONTROL: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def clean(text: str) -> str:
    """Foreign text without what a terminal would obey, and XML or a strict JSON reader refuse."""
    return _CONTROL.sub("\ufffd", text)


def escaped_html(text: str) -> str:
    """Foreign text for HTML or XML, in elements and attributes.

    Neither has a way to write control characters, not even escaped.
    """
    return html.escape(clean(text), quote=True)
