"""Line charts of a page as inline SVG: no scripts, no files; as wide as the page leaves room, text of one size."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from qdx.verification.report.markup import Markup, escaped, joined
from qdx.verification.report.ticks import round_ticks, whole_ticks

__all__ = ["Bound", "Line", "charts_of", "curves"]

_HEIGHT: Final = 220
_NO_NAMES: Final[Mapping[int, str]] = MappingProxyType({})
_LABEL_GAP: Final = 15
_STYLES: Final = 5
"""How many looks of lines the style sheet has; see `page.css`."""


@dataclass(frozen=True)
class Line:
    """One line.

    Attributes:
        name: Its label.
        points: Number of a call, and the value; what is not finite is left out.
        style: Its look, the same for the same thing on all charts.
    """

    name: str
    points: Sequence[tuple[int, float | None]]
    style: int

    @property
    def drawn(self) -> list[tuple[int, float]]:
        """The points that can be drawn."""
        return [(x, y) for x, y in self.points if y is not None and math.isfinite(y)]


@dataclass(frozen=True)
class Bound:
    """A horizontal line that values are held against, with its words."""

    value: float
    words: str


@dataclass(frozen=True)
class _Scale:
    """Places of values: across in percent of the width, down in pixels."""

    first: int
    last: int
    low: float
    high: float

    def across(self, x: float) -> str:
        share = (x - self.first) / (self.last - self.first) if self.last > self.first else 0.5
        return f"{100 * share:.2f}%"

    def down(self, y: float) -> float:
        return round((self.high - y) / (self.high - self.low) * _HEIGHT, 1)


def curves(
    title: str,
    lines: Sequence[Line],
    *,
    across: str,
    up: str,
    unit: str = "",
    bounds: Sequence[Bound] = (),
    places: Mapping[int, str] = _NO_NAMES,
) -> Markup:
    """A chart with lines that bear their names; nothing where there is nothing to draw.

    Args:
        title: What it shows.
        lines: In the order in which they are drawn.
        across: What the horizontal axis counts.
        up: What the vertical axis measures, with its unit.
        unit: Of the values, for those who point at one.
        bounds: What the values are held against.
        places: Words for numbers on the horizontal axis, for those who point at a value.
    """
    shown = [line for line in lines if line.drawn]
    if not shown:
        return Markup("")
    values = [y for line in shown for _, y in line.drawn] + [bound.value for bound in bounds]
    steps = [x for line in shown for x, _ in line.drawn]
    ticks = round_ticks(min(values), max(values))
    scale = _Scale(min(steps), max(steps), ticks[0], ticks[-1])
    parts = [_grid(scale, ticks), *(_bound(scale, bound) for bound in bounds)]
    parts += [_line(scale, line, across, unit, places) for line in shown]
    parts.append(_labels(scale, shown))
    described = f"{title}. {_told(shown, unit)}"
    return Markup(
        f'<figure class="chart">\n<figcaption>{escaped(title)}</figcaption>\n'
        f'<p class="axis">{escaped(up)}</p>\n<div class="plot">'
        f'<svg width="100%" height="{_HEIGHT}" role="img" aria-label="{escaped(described)}">'
        f'{"".join(parts)}</svg></div>\n<p class="axis across">{escaped(across)}</p>\n</figure>\n'
    )


def charts_of(charts: Iterable[Markup]) -> Markup:
    """Charts next to each other where there is room; nothing without any."""
    body = joined(charts)
    return Markup(f'<div class="charts">\n{body}</div>\n') if body else body


def _told(lines: Sequence[Line], unit: str) -> str:
    """The chart for those who do not see it."""
    words = []
    for line in lines:
        values = [y for _, y in line.drawn]
        worst, best = f"{min(values):.4g}", f"{max(values):.4g}"
        words.append(f"{line.name}: from {worst} to {best} {unit}".rstrip())
    return "; ".join(words)


def _grid(scale: _Scale, ticks: Sequence[float]) -> str:
    parts = []
    digits = max((len(f"{tick:g}".partition(".")[2]) for tick in ticks), default=0)
    for tick in ticks:
        y = scale.down(tick)
        parts.append(
            f'<line class="grid" x1="0" x2="100%" y1="{y}" y2="{y}"/>'
            f'<text class="tick" x="0" dx="-8" y="{y + 4}" text-anchor="end">{tick:.{digits}f}</text>'
        )
    for step in whole_ticks(scale.first, scale.last):
        x = scale.across(step)
        parts.append(
            f'<line class="grid" x1="{x}" x2="{x}" y1="{_HEIGHT}" y2="{_HEIGHT + 5}"/>'
            f'<text class="tick" x="{x}" y="{_HEIGHT + 18}" text-anchor="middle">{step}</text>'
        )
    return "".join(parts)


def _bound(scale: _Scale, bound: Bound) -> str:
    y = scale.down(bound.value)
    # Above its line, but for one at the very top.
    text = y - 6 if y > 20 else y + 15
    return (
        f'<line class="bound" x1="0" x2="100%" y1="{y}" y2="{y}"/>'
        f'<text class="bound" paint-order="stroke" x="0" dx="6" y="{text}">{escaped(bound.words)}</text>'
    )


def _line(scale: _Scale, line: Line, across: str, unit: str, words: Mapping[int, str]) -> str:
    places = [(scale.across(x), scale.down(y)) for x, y in line.drawn]
    look = f"s{line.style % _STYLES}"
    strokes = "".join(
        f'<line class="stroke" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>'
        for (x1, y1), (x2, y2) in itertools.pairwise(places)
    )
    of = across.partition(",")[0]
    dots = "".join(
        f'<circle class="dot" cx="{x}" cy="{y}" r="3.5">'
        f"<title>{escaped(line.name)}, {escaped(words.get(step, f'{of} {step}'))}: {value:.4g} {escaped(unit)}</title></circle>"
        for (x, y), (step, value) in zip(places, line.drawn, strict=True)
    )
    return f'<g class="{look}">{strokes}{dots}</g>'


def _labels(scale: _Scale, lines: Sequence[Line]) -> str:
    """Names at the ends of the lines, moved apart where they would cover each other."""
    ends = sorted((scale.down(line.drawn[-1][1]), number) for number, line in enumerate(lines))
    places: list[float] = []
    for y, _ in ends:
        places.append(max(y, places[-1] + _LABEL_GAP) if places else max(y, 6.0))
    over = max(0.0, places[-1] - (_HEIGHT - 2))
    for number in range(len(places) - 1, -1, -1):
        room = places[number + 1] - _LABEL_GAP if number + 1 < len(places) else _HEIGHT - 2.0
        places[number] = min(places[number], room) if over else places[number]
    return "".join(
        f'<text paint-order="stroke" class="name s{lines[number].style % _STYLES}" x="100%" dx="10" y="{place + 4:.1f}">'
        f"{escaped(lines[number].name)}</text>"
        for place, (_, number) in zip(places, ends, strict=True)
    )
