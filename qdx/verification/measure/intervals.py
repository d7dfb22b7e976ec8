"""Means with intervals: what a handful of seeds and prompts says about all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from qdx.exporter.measure.metrics import finite_or_none

__all__ = ["Interval", "bootstrap"]

_RESAMPLES: Final = 1000
_SEED: Final = 0
_TAILS: Final = (0.025, 0.975)


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % bootstrap interval.

    Attributes:
        mean: Over the runs; NaN where one has no value.
        low: Lower end; NaN likewise, and where there is a single run.
        high: Upper end, likewise.
        count: Number of runs.
    """

    mean: float
    low: float
    high: float
    count: int

    def to_json(self) -> dict[str, Any]:
        """The interval as plain JSON data; what is not a number becomes null."""
        found = {"mean": self.mean, "low": self.low, "high": self.high}
        return {
            **{name: finite_or_none(value) for name, value in found.items()},
            "count": self.count,
        }


def bootstrap(values: Sequence[float]) -> Interval:
    """The mean over runs, and the percentile interval of the means of 1000 seeded resamples.

    For paired figures, give the differences: resampling them resamples both sides of a run together.

    Args:
        values: One figure of each run.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0 or not np.isfinite(array).all():
        return Interval(math.nan, math.nan, math.nan, array.size)
    if array.size == 1:
        return Interval(float(array[0]), math.nan, math.nan, 1)
    rng = np.random.default_rng(_SEED)
    means = rng.choice(array, (_RESAMPLES, array.size)).mean(axis=1)
    low, high = np.quantile(means, _TAILS)
    return Interval(float(array.mean()), float(low), float(high), array.size)
