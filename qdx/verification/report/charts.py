"""Line charts and bars of a report as inline SVG: no scripts, no files, readable in light and dark."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from qdx.exporter.text.clean import clean

__all__ = ["bars", "curves"]

_WIDTH: Final = 640
_HEIGHT: Final = 240
_LEFT: Final = 44
_BOTTOM: Final = 28
_TOP: Final = 12
_RIGHT: Final = 150
_TICKS: Final = 5
_COLOURS: Final = ("#3b82f6", "#e8890c", "#14a06a", "#b04fd0", "#d64545", "#5c7080")
_BAR: Final = 18

Points = Sequence[tuple[int, float]]
_Place = Callable[[float, float], tuple[float, float]]


def curves(
    title: str, unit: str, lines: Mapping[str, Points], *, bound: float | None = None
) -> str:
    """A chart with one line for each name.

    Args:
        title: Told to those who do not see it.
        unit: Of the values.
        lines: Points by name: call number and value; what is not finite is left out.
        bound: Drawn as a dashed line; None draws none.
    """
    kept = {n: [(x, y) for x, y in points if math.isfinite(y)] for n, points in lines.items()}
    values = [y for points in kept.values() for _, y in points]
    if not values:
        return ""
    values += [] if bound is None else [bound]
    steps = [x for points in kept.values() for x, _ in points]
    low, high = _padded(min(values), max(values))
    first, last = min(steps), max(*steps, min(steps) + 1)

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - first) / (last - first)
        return (
            round(_LEFT + across * (_WIDTH - _LEFT - _RIGHT), 1),
            round(_TOP + (high - y) / (high - low) * (_HEIGHT - _TOP - _BOTTOM), 1),
        )

    parts = [_axes(low, high, first, last, unit, place)]
    if bound is not None:
        (x1, y1), (x2, _) = place(first, bound), place(last, bound)
        parts.append(
            f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y1}" stroke="currentColor" '
            'stroke-dasharray="5 4" opacity=".6"/>'
        )
    for number, (name, points) in enumerate(kept.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        path = " ".join(f"{x},{y}" for x, y in (place(*point) for point in points))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{x}" cy="{y}" r="2.5" fill="{colour}"><title>{_text(name)}, call {step}: '
            f"{value:.4g} {_text(unit)}</title></circle>"
            for (step, value), (x, y) in ((point, place(*point)) for point in points)
        ]
        top = _TOP + 12 + 18 * number
        parts.append(
            f'<rect x="{_WIDTH - _RIGHT + 14}" y="{top - 9}" width="10" height="10" fill="{colour}"/>'
            f'<text x="{_WIDTH - _RIGHT + 30}" y="{top}">{_text(name)}</text>'
        )
    return _svg(title, _HEIGHT, "".join(parts))


def bars(title: str, values: Sequence[tuple[str, float]]) -> str:
    """Horizontal bars of shares from 0 to 1, with their names."""
    parts = []
    for number, (name, share) in enumerate(values):
        top = number * (_BAR + 6)
        width = max(1.0, round(share * (_WIDTH - 380), 1)) if math.isfinite(share) else 0.0
        percent = f"{100 * share:.1f} %" if math.isfinite(share) else "-"
        parts.append(
            f'<text x="320" y="{top + 13}" text-anchor="end">{_text(_short(name))}'
            f"<title>{_text(name)}</title></text>"
            f'<rect x="328" y="{top}" width="{width}" height="{_BAR}" fill="{_COLOURS[0]}"/>'
            f'<text x="{334 + width}" y="{top + 13}">{percent}</text>'
        )
    return _svg(title, len(values) * (_BAR + 6), "".join(parts)) if values else ""


def _axes(low: float, high: float, first: int, last: int, unit: str, place: _Place) -> str:
    parts = []
    for tick in range(_TICKS):
        value = low + (high - low) * tick / (_TICKS - 1)
        left, y = place(first, value)
        right, _ = place(last, value)
        parts.append(
            f'<line x1="{left}" y1="{y}" x2="{right}" y2="{y}" stroke="currentColor" opacity=".15"/>'
            f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{value:.3g}</text>'
        )
    for step in dict.fromkeys((first, (first + last) // 2, last)):
        x, _ = place(step, low)
        parts.append(f'<text x="{x}" y="{_HEIGHT - 8}" text-anchor="middle">{step}</text>')
    return (
        "".join(parts) + f'<text x="{_WIDTH - _RIGHT + 14}" y="{_HEIGHT - 8}">{_text(unit)}</text>'
    )


def _padded(low: float, high: float) -> tuple[float, float]:
    margin = 0.05 * (high - low) or 1.0
    return low - margin, high + margin


def _short(name: str) -> str:
    return name if len(name) <= 46 else "…" + name[-45:]


def _svg(title: str, height: int, body: str) -> str:
    return (
        f'<svg role="img" aria-label="{_text(title)}" viewBox="0 0 {_WIDTH} {height}" '
        f'width="{_WIDTH}" font-size="11" fill="currentColor">{body}</svg>'
    )


def _text(value: str) -> str:
    return html.escape(clean(value), quote=True)
