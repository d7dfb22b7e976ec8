"""A front as a picture of its own: SVG without scripts, styles of pages or files."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Final

from qdx.exporter.text.clean import escaped_html
from qdx.search.pareto import Front, Point, decibels
from qdx.verification.report.ticks import round_ticks

__all__ = ["picture"]

_WIDTH: Final = 720
_HEIGHT: Final = 420
_LEFT: Final = 64
_TOP: Final = 40
_PLOT_WIDTH: Final = 600
_PLOT_HEIGHT: Final = 310
_UNITS: Final = {"bytes": ("megabytes", 1e6), "latency_ms": ("milliseconds", 1.0), "bit_operations": ("bit operations x 1e9", 1e9)}  # fmt: skip
# Colours of Okabe and Ito, darkened for white paper; dashes tell the lines apart without hue.
_LOOKS: Final = (("predicted", "#0b62a3", ""), ("measured", "#a94a00", "6 4"))


def picture(front: Front, *, title: str, found: Point | None = None) -> str:
    """Returns the front as an SVG document.

    Args:
        front: With two points at least.
        title: What it is of.
        found: The assignment that a search chose, marked; None for none.
    """
    words, unit = _UNITS[front.cost]
    lines = [
        _points(front.points, unit, measured=False),
        _points(front.points, unit, measured=True),
    ]
    marked = [] if found is None else _points([found], unit, measured=found.measured is not None)
    every = [point for line in [*lines, marked] for point in line]
    across = _spread([x for x, _ in every])
    up = _spread([y for _, y in every])
    parts = [_grid(across, up), _axis_names(words)]
    for points, (name, colour, dashes) in zip(lines, _LOOKS, strict=True):
        parts.append(_line(points, across, up, name, colour, dashes))
    parts += [_mark(x, y, across, up) for x, y in marked]
    told = "; ".join(f"{x:.4g} {words}: {y:.1f} dB" for x, y in lines[1] or lines[0])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" '
        f'height="{_HEIGHT}" role="img" font-family="system-ui, sans-serif" font-size="13" fill="#1c2126">\n'
        f"<title>{escaped_html(title)}</title>\n<desc>{escaped_html(told)}</desc>\n"
        f'<rect width="100%" height="100%" fill="#ffffff"/>\n'
        f'<text x="{_LEFT}" y="20" font-weight="600">{escaped_html(title)}</text>\n'
        f"{''.join(parts)}</svg>\n"
    )


def _points(points: Sequence[Point], unit: float, *, measured: bool) -> list[tuple[float, float]]:
    found = []
    for point in points:
        noise = point.measured if measured else point.predicted
        if noise is not None and math.isfinite(value := decibels(noise["prediction"])):
            cost = point.taken_ms if measured and point.taken_ms is not None else point.cost
            found.append((cost / unit, value))
    return found


def _spread(values: Sequence[float]) -> tuple[float, ...]:
    return round_ticks(min(values, default=0.0), max(values, default=1.0))


def _x(value: float, ticks: Sequence[float]) -> float:
    return round(_LEFT + _PLOT_WIDTH * (value - ticks[0]) / (ticks[-1] - ticks[0]), 1)


def _y(value: float, ticks: Sequence[float]) -> float:
    return round(_TOP + _PLOT_HEIGHT * (ticks[-1] - value) / (ticks[-1] - ticks[0]), 1)


def _grid(across: Sequence[float], up: Sequence[float]) -> str:
    right, bottom = _LEFT + _PLOT_WIDTH, _TOP + _PLOT_HEIGHT
    parts = []
    for tick in up:
        y = _y(tick, up)
        parts.append(
            f'<line x1="{_LEFT}" x2="{right}" y1="{y}" y2="{y}" stroke="#d5dae0"/>'
            f'<text x="{_LEFT - 8}" y="{y + 4}" text-anchor="end" fill="#55606b">{tick:g}</text>\n'
        )
    for tick in across:
        x = _x(tick, across)
        parts.append(
            f'<line x1="{x}" x2="{x}" y1="{bottom}" y2="{bottom + 5}" stroke="#55606b"/>'
            f'<text x="{x}" y="{bottom + 20}" text-anchor="middle" fill="#55606b">{tick:g}</text>\n'
        )
    return "".join(parts)


def _axis_names(words: str) -> str:
    return (
        f'<text x="{_LEFT + _PLOT_WIDTH / 2}" y="{_HEIGHT - 22}" text-anchor="middle" fill="#55606b">{words}</text>\n'
        f'<text x="{_LEFT}" y="{_TOP - 6}" fill="#55606b">signal to noise of the prediction, dB</text>\n'
    )


def _line(
    points: Sequence[tuple[float, float]],
    across: Sequence[float],
    up: Sequence[float],
    name: str,
    colour: str,
    dashes: str,
) -> str:
    if not points:
        return ""
    places = [(_x(x, across), _y(y, up)) for x, y in points]
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    strokes = "".join(
        f'<line x1="{a}" y1="{b}" x2="{c}" y2="{d}" stroke="{colour}" stroke-width="2"{dashed}/>'
        for (a, b), (c, d) in itertools.pairwise(places)
    )
    dots = "".join(
        f'<circle cx="{a}" cy="{b}" r="3.5" fill="{colour}"><title>{name}: {x:.4g}, {y:.2f} dB</title></circle>'
        for (a, b), (x, y) in zip(places, points, strict=True)
    )
    a, b = places[-1]
    shift = -10 if name == "predicted" else 18
    label = f'<text x="{a}" y="{b + shift}" text-anchor="end" fill="{colour}">{name}</text>\n'
    return strokes + dots + label


def _mark(x: float, y: float, across: Sequence[float], up: Sequence[float]) -> str:
    a, b = _x(x, across), _y(y, up)
    return (
        f'<circle cx="{a}" cy="{b}" r="7" fill="none" stroke="#00704f" stroke-width="2.5"/>'
        f'<text x="{a + 11}" y="{b + 16}" fill="#00704f">this plan</text>\n'
    )
