"""Ratios of paired times, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

__all__ = ["Ratio", "ratio_of"]

_RESAMPLES: Final = 10_000
_TAILS: Final = (0.025, 0.975)


@dataclass(frozen=True)
class Ratio:
    """How many times as long.

    Attributes:
        median: Over the rounds, of this time divided by the other's in the same round.
        low: Lower end of the 95 % bootstrap interval of that median.
        high: Upper end.
    """

    median: float
    low: float
    high: float


def ratio_of(times: Sequence[float], others: Sequence[float]) -> Ratio:
    """The ratio of times taken in the same rounds; resampling draws rounds, so pairs stay together.

    Args:
        times: One of each round, in any unit.
        others: Likewise, in the same unit and order.
    """
    ratios = np.asarray(times, np.float64) / np.asarray(others, np.float64)
    generator = np.random.default_rng(0)
    drawn = generator.choice(ratios, (_RESAMPLES, len(ratios)))
    low, high = np.quantile(np.median(drawn, axis=1), _TAILS)
    return Ratio(float(np.median(ratios)), float(low), float(high))
