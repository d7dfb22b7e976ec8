"""How far two numbers of the same things put them in the same order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["spearman"]


def spearman(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Returns Spearman's rank correlation: that of Pearson of the ranks, equal values sharing the mean of theirs.

    Args:
        one: Numbers.
        other: As many.

    Returns:
        -1 to 1; None for fewer than two, or where all of one side are equal.
    """
    first, second = _ranks(one), _ranks(other)
    if len(first) < 2 or not np.ptp(first) or not np.ptp(second):
        return None
    return float(np.clip(np.corrcoef(first, second)[0, 1], -1, 1))


def _ranks(values: Sequence[float]) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    _, inverse, counts = np.unique(array, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    means: NDArray[np.float64] = last - (counts - 1) / 2
    return means[inverse]
