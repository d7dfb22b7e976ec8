"""How reports write figures, on the terminal and on the page."""

from __future__ import annotations

import math

__all__ = ["figure", "percent"]


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
