"""How reports write figures, on the terminal and on the page."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["figure", "percent", "text_table"]


def figure(value: float | None) -> str:
    """A measurement in four digits.

    >>> figure(48.1251), figure(None), figure(math.nan)
    ('48.13', '-', '-')
    """
    return "-" if value is None or not math.isfinite(value) else f"{value:.4g}"


def percent(share: float | None) -> str:
    """A share of one as a percentage.

    >>> percent(0.98765), percent(None)
    ('98.8 %', '-')
    """
    return "-" if share is None or not math.isfinite(share) else f"{100 * share:.1f} %"


def text_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows under their column names, aligned with spaces."""
    lines = [list(columns), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(columns))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
