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
        low: Lower end of the 95 % bootstrap interval of that median, over openings and rounds.
        high: Upper end.
    """

    median: float
    low: float
    high: float


def ratio_of(times: Sequence[float], others: Sequence[float], openings: int = 1) -> Ratio:
    """The ratio of times taken in the same rounds.

    Resampling draws openings, and rounds of each of them, so pairs stay together and what differs from one opening to
    the next widens the interval (the nested bootstrap of Davison and Hinkley, Bootstrap Methods, 1997, section 3.8).

    Args:
        times: One of each round, in any unit.
        others: Likewise, in the same unit and order.
        openings: How many there were; the rounds of each stand together, as many of one as of another.
    """
    ratios = np.asarray(times, np.float64) / np.asarray(others, np.float64)
    by_opening = ratios.reshape(openings, -1)
    generator = np.random.default_rng(0)
    drawn = generator.integers(openings, size=(_RESAMPLES, openings, 1))
    rounds = generator.integers(by_opening.shape[1], size=(_RESAMPLES, *by_opening.shape))
    low, high = np.quantile(np.median(by_opening[drawn, rounds], axis=(1, 2)), _TAILS)
    return Ratio(float(np.median(ratios)), float(low), float(high))
