"""From statistics to a range: extremes, a share of the values, or the least squared error."""

from __future__ import annotations

from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from qdx.exporter.calibrate.histogram import BINS, bin_width
from qdx.exporter.errors import UsageError

__all__ = ["Observer", "range_of"]

Observer = Literal["minmax", "percentile", "mse"]
Floats = NDArray[np.float64]

# Points in each bin at which the squared error is taken: a step of eight bits spans one bin or more.
_POINTS_OF_BIN: Final = 8
# Clipped ranges that `mse` tries: 1/64 to the whole in steps of 2^(1/4), then finer beside the best.
_RATIOS: Final = 2.0 ** (-np.arange(25) / 4)
_FINER: Final = 2.0 ** (np.arange(-7, 8) / 32)
_ROUNDS_LIMIT: Final = 3


def range_of(
    observer: Observer,
    counts: NDArray[np.int64],
    exponent: int,
    extremes: tuple[float, float],
    *,
    percentile: float | None = None,
    bits: int = 8,
    symmetric: bool = False,
) -> tuple[float, float]:
    """The range that an observer chooses.

    Args:
        observer: Which.
        counts: Of a histogram over [-2^k, 2^k), [2048]; not all zero.
        exponent: Its k.
        extremes: The exact minimum and maximum.
        percentile: For `percentile`: the share of values inside, of which half the rest lies on each side.
        bits: For `mse`: of the quantizer.
        symmetric: Whether one threshold bounds the magnitude on both sides.

    Returns:
        Low and high, within the extremes.

    Raises:
        UsageError: An argument is missing or outside of its bounds.
    """
    if observer == "minmax":
        return extremes
    if observer == "percentile":
        if percentile is None or not 0.5 <= percentile <= 1:
            raise UsageError(f"percentile is {percentile}, expected 0.5 to 1, such as 0.9999")
        return _share(counts, exponent, extremes, percentile, symmetric=symmetric)
    if observer == "mse":
        if not 2 <= bits <= 16:
            raise UsageError(f"bits are {bits}, expected 2 to 16")
        return _least_error(counts, exponent, extremes, 2**bits - 1, symmetric=symmetric)
    raise UsageError(f"observer is {observer!r}, expected minmax, percentile or mse")


def _share(
    counts: NDArray[np.int64],
    exponent: int,
    extremes: tuple[float, float],
    share: float,
    *,
    symmetric: bool,
) -> tuple[float, float]:
    """Quantiles, interpolated within their bins."""
    width = bin_width(exponent)
    if symmetric:
        magnitudes = counts[BINS // 2 :] + counts[: BINS // 2][::-1]
        threshold = _quantile(magnitudes, share) * width
        low, high = -threshold, threshold
    else:
        tail = (1 - share) / 2
        low = (_quantile(counts, tail) - BINS // 2) * width
        high = (BINS // 2 - _quantile(counts[::-1], tail)) * width
    return _within((low, high), extremes)


def _quantile(counts: NDArray[np.int64], share: float) -> float:
    """The place, in bins from the front, below which a share of the values lies."""
    before = np.concatenate([[0], np.cumsum(counts)])
    wanted = share * float(before[-1])
    index = min(max(int(np.searchsorted(before, wanted, side="left")) - 1, 0), len(counts) - 1)
    if counts[index] == 0:  # the share is 0 or falls on the edge of an empty bin
        return float(np.flatnonzero(counts)[0])
    return index + min(max((wanted - float(before[index])) / float(counts[index]), 0.0), 1.0)


def _within(found: tuple[float, float], extremes: tuple[float, float]) -> tuple[float, float]:
    low, high = max(found[0], extremes[0]), min(found[1], extremes[1])
    return (low, high) if low <= high else extremes


def _least_error(
    counts: NDArray[np.int64],
    exponent: int,
    extremes: tuple[float, float],
    levels: int,
    *,
    symmetric: bool,
) -> tuple[float, float]:
    """The range of least expected squared error of rounding to `levels` + 1 values and clipping.

    Searched along one side at a time, each between its extreme and 1/64 of it.
    """
    points, weights = _points(counts, exponent, extremes)
    low, high = min(extremes[0], 0.0), max(extremes[1], 0.0)
    if low == high:
        return extremes
    if symmetric:
        reach = max(-low, high)
        # As large as the magnitude on the side that has one step less.
        reach *= _best(lambda ratio: _error(points, weights, ratio * reach, levels))
        return _within((-reach, reach), extremes)
    below, above = 1.0, 1.0
    for _ in range(_ROUNDS_LIMIT):
        before = below, above
        if high > 0:
            fixed = below * low
            above = _best(lambda r, b=fixed: _span_error(points, weights, b, r * high, levels))
        if low < 0:
            fixed = above * high
            below = _best(lambda r, a=fixed: _span_error(points, weights, r * low, a, levels))
        if (below, above) == before:
            break
    return _within((below * low, above * high), extremes)


def _points(
    counts: NDArray[np.int64], exponent: int, extremes: tuple[float, float]
) -> tuple[Floats, Floats]:
    """Values that stand for the histogram, and how many each stands for; even within every bin."""
    filled = np.flatnonzero(counts)
    offsets = (np.arange(_POINTS_OF_BIN) + 0.5) / _POINTS_OF_BIN
    places = (filled[:, None] - BINS // 2 + offsets) * bin_width(exponent)
    weights = np.repeat(counts[filled] / _POINTS_OF_BIN, _POINTS_OF_BIN)
    return np.clip(places.reshape(-1), *extremes), weights


def _best(error_of: Any) -> float:
    """The ratio of least error; the largest one of equals."""
    coarse = min(_RATIOS, key=error_of)
    return float(min(np.minimum(coarse * _FINER[::-1], 1.0), key=error_of))


def _error(points: Floats, weights: Floats, reach: float, levels: int) -> float:
    """Squared error of a quantizer with zero point 0 and scale reach / (levels // 2)."""
    half = levels // 2
    scale = reach / half
    return _rounded_error(points, weights, scale, -half - 1, half)


def _span_error(points: Floats, weights: Floats, low: float, high: float, levels: int) -> float:
    """Squared error of a quantizer that spreads its levels from low to high; zero is one of them."""
    scale = (high - low) / levels
    zero = round(-low / scale)
    return _rounded_error(points, weights, scale, -zero, levels - zero)


def _rounded_error(points: Floats, weights: Floats, scale: float, low: int, high: int) -> float:
    steps = np.clip(np.rint(points / scale), low, high)
    errors = steps * scale - points
    return float(weights @ (errors * errors))
