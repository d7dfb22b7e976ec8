"""What metrics share: checks of both sides, float64, and blocks that fit into the processor's caches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["DB_LIMIT", "are_comparable", "blocks", "decibels", "in_float64", "largest"]

# JSON has no infinity. Decibels are cut to this limit on both sides: equal tensors have 200 dB. The
# rounding of float64 alone lies beyond 300 dB, that of float32 near 150 dB.
DB_LIMIT: Final = 200.0
_BLOCK: Final = 1 << 17
"""Elements that are measured at a time: a megabyte of float64."""


def are_comparable(reference: Tensor, output: Tensor) -> bool:
    """Whether two tensors have one shape and at least one element, and all of these are finite."""
    if reference.shape != output.shape or reference.numel() == 0:
        return False
    return _is_finite(reference) and _is_finite(output)


def in_float64(
    reference: Tensor, output: Tensor, metric: Callable[[Tensor, Tensor], float]
) -> float:
    """The metric of both in float64, or NaN for bad data."""
    if not are_comparable(reference, output):
        return math.nan
    one, other = (side.detach().cpu().double() for side in (reference, output))
    value = metric(one, other)
    return value if math.isfinite(value) else math.nan


def blocks(*tensors: Tensor, scale: float = 1.0) -> Iterator[tuple[Tensor, ...]]:
    """Copies of the elements of tensors of one size in float64, as many at a time as the processor's caches hold."""
    import torch

    flat = [tensor.detach().reshape(-1) for tensor in tensors]
    for start in range(0, flat[0].numel(), _BLOCK):
        parts = (one[start : start + _BLOCK].to("cpu", torch.float64, copy=True) for one in flat)
        yield tuple(part if scale == 1.0 else part.div_(scale) for part in parts)


def largest(*tensors: Tensor) -> float:
    """The largest magnitude, 1 where all are zero; NaN or infinity for bad data."""
    return float(max(one.detach().cpu().double().abs().max() for one in tensors)) or 1.0


def decibels(signal: float, noise: float) -> float:
    """10 log10(signal / noise) within the limit; no noise is the best, also without a signal."""
    if noise == 0:
        return DB_LIMIT
    if signal == 0:
        return -DB_LIMIT
    ratio = 10 * (math.log10(signal) - math.log10(noise))
    return max(-DB_LIMIT, min(DB_LIMIT, ratio))


def _is_finite(tensor: Tensor) -> bool:
    # One value that is not finite makes the sum so, which is the faster question; a sum may also run over.
    return math.isfinite(float(tensor.sum())) or bool(tensor.isfinite().all())
