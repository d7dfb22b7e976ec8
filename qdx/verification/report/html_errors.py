"""Where the error enters: a map over the network's stages, and the operations that make most of it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from qdx.verification.report.format import measure, percent
from qdx.verification.report.heat import Cell, heat_map
from qdx.verification.report.markup import (
    Markup,
    details,
    escaped,
    joined,
    paragraph,
    section,
    table,
)
from qdx.verification.stored.measurements import StoredLocalization, StoredSite
from qdx.verification.stored.report import StoredReport

__all__ = ["errors_section"]

_SITES_SHOWN: Final = 12
_SHARES: Final = (0.01, 0.05, 0.15, 0.4)
_SHARE_LEVELS: Final[dict[int | None, str]] = {
    5: "40 % and more", 4: "15 to 40 %", 3: "5 to 15 %", 2: "1 to 5 %", 1: "less", None: "not among the worst",
}  # fmt: skip
_DECIBELS: Final = (50.0, 40.0, 30.0, 20.0)
_DECIBEL_LEVELS: Final[dict[int | None, str]] = {
    5: "under 20 dB", 4: "20 to 30", 3: "30 to 40", 2: "40 to 50", 1: "over 50 dB",
}  # fmt: skip


def errors_section(report: StoredReport) -> Markup:
    """The localization; nothing where nobody asked for it."""
    found = report.localization
    if found is None:
        return Markup("")
    first = Markup("")
    if found.first is not None:
        first = Markup(
            f" Of the named operations, it enters first at <code>{escaped(found.first)}</code>."
        )
    head = paragraph(
        f"Call {found.call} of {found.where}, the worst that was compared: most of its error enters in {found.enters}.",
        first,
    )
    return section(
        "errors", "Where the error enters", head, _shares(found), _table(found), _own(found)
    )


def _shares(found: StoredLocalization) -> Markup:
    """Shares of the error at the output, of the operations that were measured alone."""
    places = _places(found.sites)

    def cell(stage: str, role: str) -> Cell | None:
        sites = [one for one in found.sites if (one.stage, one.role) == (stage, role)]
        if not sites:
            return None
        known = [one.share for one in sites if one.share is not None]
        where = f"{stage or 'outside'}, {role}"
        if not known:
            return Cell(None, "", f"{where}: not among the {len(found.ranked)} worst operations")
        share = sum(known)
        level = 1 + sum(share >= least for least in _SHARES)
        words = f"{where}: {percent(share)} of the error at the output, {len(known)} of {len(sites)} measured"
        return Cell(level, f"{100 * share:.0f}" if share >= 0.01 else "<1", words)

    count = len(found.ranked)
    caption = f"Share of the error at the output, percent, of the {count} operations with the largest error of their own"
    return heat_map(caption, places, cell, _SHARE_LEVELS)


def _own(found: StoredLocalization) -> Markup:
    """The error that each operation makes by itself."""

    def cell(stage: str, role: str) -> Cell | None:
        sites = [one for one in found.sites if (one.stage, one.role) == (stage, role)]
        values = [one.local_sqnr_db for one in sites]
        if not values:
            return None
        where = f"{stage or 'outside'}, {role}"
        known = [one for one in values if one is not None and math.isfinite(one)]
        if len(known) < len(values):
            return Cell(5, "!", f"{where}: not a number")
        least = min(known)
        level = 1 + sum(least < bound for bound in _DECIBELS)
        return Cell(
            level,
            f"{least:.0f}",
            f"{where}: {measure('sqnr_db', least)}, the least of {len(known)}",
        )

    caption = "Error that operations make by themselves, of float inputs: least SQNR, dB"
    shown = heat_map(caption, _places(found.sites), cell, _DECIBEL_LEVELS)
    return details("The error of every operation by itself", shown)


def _table(found: StoredLocalization) -> Markup:
    rows = [
        (
            Markup(f"<code>{escaped(site.key)}</code>"),
            site.stage or "outside",
            site.role,
            percent(site.share),
            measure("sqnr_db", site.local_sqnr_db),
            measure("sqnr_db", site.alone_sqnr_db),
            measure("sqnr_db", site.cumulative_sqnr_db),
        )
        for site in found.ranked[:_SITES_SHOWN]
    ]
    columns = (
        "operation",
        "stage",
        "role",
        "share of the error",
        "its own SQNR",
        "output, if it alone is quantized",
        "its result in the whole model",
    )
    caption = "Operations that make most of the error"
    return joined((table(columns, rows, caption=caption, numbers=range(3, 7)),))


def _places(sites: Iterable[StoredSite]) -> list[tuple[str, str]]:
    return [(one.stage, one.role) for one in sites]
