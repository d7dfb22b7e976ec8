"""A histogram of floats that grows with their range and never with their number.

Its bins are equal and halve the range [-2^k, 2^k) symmetrically about zero. A value outside doubles
the range, as often as it takes, by merging bins in pairs. Edges are powers of two times small integers, so
placing and merging are exact: the same values give the same counts in any order and in any portions.
"""

from __future__ import annotations

import math
from typing import Final

import torch

__all__ = ["BINS", "EXPONENTS", "bin_width", "counts_of", "exponent_for", "widened"]

BINS: Final = 2048
_HALF: Final = BINS // 2
_HALF_BITS: Final = _HALF.bit_length() - 1
EXPONENTS: Final = (-64, 128)
"""The least and greatest k; every finite float32 is below 2^128."""


def exponent_for(low: float, high: float) -> int:
    """The least k for which [-2^k, 2^k) holds both values."""
    least = EXPONENTS[0]
    above = math.frexp(high)[1] if high > 0 else least
    below = least
    if low < 0:
        fraction, exponent = math.frexp(-low)
        below = exponent - 1 if fraction == 0.5 else exponent  # -2^k itself is inside
    return max(least, above, below)


def bin_width(exponent: int) -> float:
    """Width of one bin of the range [-2^k, 2^k)."""
    return math.ldexp(1.0, exponent - _HALF_BITS)


def counts_of(values: torch.Tensor, exponent: int) -> torch.Tensor:
    """Counts values by bin.

    Args:
        values: float32, any shape, all of them in [-2^k, 2^k).
        exponent: The k of the range.

    Returns:
        int64 [BINS].
    """
    # A power of two scales exactly, so that the rounding down finds the true bin.
    scaled = values.reshape(-1) * math.ldexp(1.0, _HALF_BITS - exponent)
    bins = scaled.floor_().add_(_HALF)
    if values.device.type == "cpu":
        return torch.bincount(bins.to(torch.int32), minlength=BINS)
    # On a GPU that would wait for the greatest bin. Whole numbers add up to the same in any order.
    index = bins.to(torch.int64)
    counts = torch.zeros(BINS, dtype=torch.int64, device=index.device)
    return counts.scatter_add_(0, index, torch.ones_like(index))


def widened(counts: torch.Tensor, doublings: int) -> torch.Tensor:
    """The counts of a range after doubling it some times.

    Args:
        counts: int64 [BINS].
        doublings: At least 0; beyond 10 only the two bins beside zero are left.

    Returns:
        int64 [BINS], the same tensor where nothing changes.
    """
    if doublings == 0:
        return counts
    merged = counts.reshape(-1, 2 ** min(doublings, _HALF_BITS)).sum(dim=1)
    wide = torch.zeros_like(counts)
    start = _HALF - len(merged) // 2
    wide[start : start + len(merged)] = merged
    return wide
