"""Several measurements as one, and as JSON has them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

__all__ = ["finite_or_none", "or_least", "worst_of"]


def worst_of(values: Iterable[float], worst: Callable[[list[float]], float] = min) -> float:
    """The worst of several measurements; NaN if one of them is NaN or if there are none.

    Args:
        values: Measurements.
        worst: `min` where more is better, `max` for errors; any summary that takes a list.
    """
    found = list(values)
    if not found or any(math.isnan(value) for value in found):
        return math.nan
    return worst(found)


def finite_or_none(value: float | None) -> float | None:
    """The value for JSON, which has neither NaN nor infinity."""
    return value if value is not None and math.isfinite(value) else None


def or_least(value: float) -> float:
    """The value as a key to sort by, NaN below all numbers."""
    return -math.inf if math.isnan(value) else value
