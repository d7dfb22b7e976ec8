"""Bars of a page as inline SVG: a value against its bound, and a whole in parts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from qdx.verification.report.markup import Markup, escaped

__all__ = ["bullet", "stacked"]

_HEIGHT: Final = 16
_WHOLE: Final = (1, 14)
_HALF: Final = (5, 6)
_THREE_QUARTERS: Final = (3, 10)
_TWO_THIRDS: Final = (4, 8)
_HEIGHTS: Final = {
    "in-product": _THREE_QUARTERS,
    "in-memory": _TWO_THIRDS,
    "downgraded": _HALF,
    "more": _HALF,
}
"""Tops and heights of parts that are lower than the others, so that they are told apart without their colour."""


def bullet(
    value: float | None, bound: float, *, at_least: bool, ok: bool, most: float | None, words: str
) -> Markup:
    """A bar from zero to a value, with the bound as a mark and what is accepted shaded.

    Args:
        value: What was measured; None draws the bound alone.
        bound: The least or greatest that is accepted.
        at_least: Whether more is better.
        ok: Whether the bound holds.
        most: Where the scale ends; None is as far as the values need.
        words: The same in words.
    """
    known = value if value is not None and math.isfinite(value) else None
    end = most if most is not None else max(1.25 * abs(bound), 1.05 * abs(known or 0.0), 1e-12)
    mark = _percent(bound / end)
    shade = (
        f'x="{mark}" width="{_percent(1 - bound / end)}"' if at_least else f'x="0" width="{mark}"'
    )
    bar = ""
    if known is not None:
        kind = "good" if ok else "bad"
        bar = f'<rect class="{kind}" x="0" y="5" width="{_percent(known / end)}" height="6"/>'
    return Markup(
        f'<svg class="bullet" width="100%" height="{_HEIGHT}" role="img" aria-label="{escaped(words)}">'
        f'<rect class="track" x="0" y="1" width="100%" height="14"/>'
        f'<rect class="accepted" {shade} y="1" height="14"/>{bar}'
        f'<line class="mark" x1="{mark}" x2="{mark}" y1="0" y2="{_HEIGHT}"/>'
        f"<title>{escaped(words)}</title></svg>"
    )


def stacked(parts: Sequence[tuple[str, str, float]], whole: float, *, words: str) -> Markup:
    """A bar in parts.

    Args:
        parts: Of each its CSS class, its words and its amount.
        whole: The amount that is as long as the bar may be.
        words: All of it in words.
    """
    drawn, start = [], 0.0
    for kind, told, amount in parts:
        share = amount / whole if whole > 0 else 0.0
        if share > 0:
            top, height = _HEIGHTS.get(kind, _WHOLE)
            drawn.append(
                f'<rect class="{kind}" x="{_percent(start)}" y="{top}" width="{_percent(share)}" height="{height}">'
                f"<title>{escaped(told)}</title></rect>"
            )
        start += share
    return Markup(
        f'<svg class="stacked" width="100%" height="{_HEIGHT}" role="img" aria-label="{escaped(words)}">'
        f"{''.join(drawn)}</svg>"
    )


def _percent(share: float) -> str:
    return f"{100 * min(1.0, max(0.0, share)):.2f}%"
