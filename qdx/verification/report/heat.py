"""A map over the stages of a network: a row for each, a column for each role of its operations, a colour for each value."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from qdx.exporter.graph.ir.site import ROLES
from qdx.verification.report.markup import Markup, escaped

__all__ = ["Cell", "heat_map"]

_LAST: Final = ("last", "other")
_ROLES: Final = (*(role for role in ROLES if role not in _LAST), *_LAST)
_OUTSIDE: Final = "outside"
"""What the map calls operations that stand in no stage."""


@dataclass(frozen=True)
class Cell:
    """One place of the map.

    Attributes:
        level: Its colour, from 0 to 5; None for what was not measured.
        text: What stands in it where there is room.
        words: The same in full.
    """

    level: int | None
    text: str
    words: str


def heat_map(
    caption: str,
    places: Sequence[tuple[str, str]],
    cell: Callable[[str, str], Cell | None],
    legend: Mapping[int | None, str],
) -> Markup:
    """The map.

    Args:
        caption: What it shows.
        places: Stages and roles, in the order of execution; each may come several times.
        cell: What a stage and a role have; None for nothing.
        legend: What the colours mean.
    """
    stages = list(dict.fromkeys(stage for stage, _ in places))
    roles = sorted({role for _, role in places}, key=_order)
    head = "".join(f'<th scope="col"><span>{escaped(role)}</span></th>' for role in roles)
    # Wide enough for two digits in every column, where there is room.
    width = 5.5 + 2.75 * len(roles)
    rows = "".join(
        f'<tr><th scope="row">{escaped(stage or _OUTSIDE)}</th>'
        f"{''.join(_cell(cell(stage, role)) for role in roles)}</tr>\n"
        for stage in stages
    )
    keys = "".join(
        f'<li><span class="key {_look(level)}"></span>{escaped(words)}</li>'
        for level, words in legend.items()
    )
    return Markup(
        f'<figure class="maps">\n<figcaption>{escaped(caption)}</figcaption>\n<table class="map" style="max-width: {width:g}rem" aria-label="{escaped(caption)}">\n'
        f'<thead><tr><th scope="col"><span class="unseen">stage</span></th>{head}</tr></thead>\n'
        f'<tbody>\n{rows}</tbody>\n</table>\n<ul class="legend">{keys}</ul>\n</figure>\n'
    )


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return '<td class="none"></td>'
    return (
        f'<td class="{_look(cell.level)}" title="{escaped(cell.words)}">'
        f"<span>{escaped(cell.text)}</span></td>"
    )


def _look(level: int | None) -> str:
    return "unmeasured" if level is None else f"h{level}"


def _order(role: str) -> tuple[int, str]:
    """As roles are listed everywhere, but what leaves at the end; behind it those of other versions."""
    return _ROLES.index(role) if role in _ROLES else len(_ROLES), role
