"""Distances between a reference and an artifact's output.

Every metric is computed in float64 and has one answer to bad data: NaN, which no gate accepts. Bad
data is a value that is not finite on either side, a difference in shape (nothing is broadcast), or
no value at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import torch
from torch import Tensor

__all__ = [
    "DB_LIMIT",
    "cosine",
    "finite_or_none",
    "max_abs_err",
    "or_least",
    "psnr_db",
    "sqnr_db",
    "ssim",
    "worst_of",
]

# JSON has no infinity. Decibels are cut to this limit on both sides: equal tensors have 200 dB. The
# rounding of float64 alone lies beyond 300 dB, that of float32 near 150 dB.
DB_LIMIT: Final = 200.0
# Wang, Bovik, Sheikh, Simoncelli 2004, "Image Quality Assessment: From Error Visibility to
# Structural Similarity": a Gaussian window of this standard deviation, in pixels.
_SSIM_SIGMA: Final = 1.5
_SSIM_ROWS: Final = 64
"""Of a picture that are measured at a time."""
_BLOCK: Final = 1 << 17
"""Elements that are measured at a time: a megabyte of float64."""


def sqnr_db(reference: Tensor, output: Tensor) -> float:
    """Signal-to-quantization-noise ratio: 10 log10(sum(reference^2) / sum((output - reference)^2)).

    Args:
        reference: Any shape; any dtype but complex.
        output: The same shape; the dtype may differ.

    Returns:
        Decibels within plus or minus `DB_LIMIT`; NaN for bad data.
    """
    if reference.shape != output.shape or reference.numel() == 0:
        return math.nan
    # A common factor does not change the ratio and keeps the squares of large values finite.
    scale = _largest(reference, output) if torch.float64 in (reference.dtype, output.dtype) else 1.0
    signal = noise = 0.0
    for one, other in _blocks(reference, output, scale=scale):
        error = other.sub_(one)
        signal += float(torch.dot(one, one))
        noise += float(torch.dot(error, error))
    if not math.isfinite(signal + noise):  # as every value that is not finite makes one of them
        return math.nan
    return _decibels(signal, noise)


def cosine(reference: Tensor, output: Tensor) -> float:
    """Cosine of the angle between both as vectors, from -1 to 1.

    Two zero vectors have 1, a zero vector and another have 0. NaN for bad data.
    """
    return _measured(reference, output, _cosine)


def max_abs_err(reference: Tensor, output: Tensor) -> float:
    """Largest absolute difference of two elements; NaN for bad data."""
    return _measured(reference, output, lambda a, b: float((b - a).abs().max()))


def psnr_db(reference: Tensor, output: Tensor, *, peak: float | None = 1.0) -> float:
    """Peak signal-to-noise ratio: 10 log10(peak^2 / mean((output - reference)^2)).

    Args:
        reference: Any shape; values span a range of width `peak`.
        output: The same shape.
        peak: Width of the range: 1 for pictures in [0, 1], 2 for sound in [-1, 1]. None takes the largest magnitude of
            the reference, as `compute_psnr` of ml-stable-diffusion does with outputs of components.

    Returns:
        Decibels within plus or minus `DB_LIMIT`; NaN for bad data.
    """
    return _measured(reference, output, lambda a, b: _psnr_db(a, b, peak))


def ssim(reference: Tensor, output: Tensor) -> float:
    """Structural similarity, the mean over pictures, channels and pixels.

    Pictures of less than six pixels on a side get a narrower window, since the usual one does not
    fit into them.

    Args:
        reference: Pictures of shape [batch, height, width, channels], in [0, 1].
        output: The same shape.

    Returns:
        At most 1, which equal pictures have; NaN for bad data.
    """
    return _measured(reference, output, _ssim)


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


def _measured(
    reference: Tensor, output: Tensor, metric: Callable[[Tensor, Tensor], float]
) -> float:
    """The metric of both in float64, or NaN for bad data."""
    if reference.shape != output.shape or reference.numel() == 0:
        return math.nan
    one, other = (side.detach().to("cpu", torch.float64) for side in (reference, output))
    if not bool(torch.isfinite(one).all()) or not bool(torch.isfinite(other).all()):
        return math.nan
    value = metric(one, other)
    return value if math.isfinite(value) else math.nan


def _blocks(*tensors: Tensor, scale: float = 1.0) -> Iterator[tuple[Tensor, ...]]:
    """Copies of the elements of tensors of one size in float64, as many at a time as the processor's caches hold."""
    flat = [tensor.detach().reshape(-1) for tensor in tensors]
    for start in range(0, flat[0].numel(), _BLOCK):
        parts = (one[start : start + _BLOCK].to("cpu", torch.float64, copy=True) for one in flat)
        yield tuple(part if scale == 1.0 else part.div_(scale) for part in parts)


def _largest(*tensors: Tensor) -> float:
    """The largest magnitude, 1 where all are zero; NaN or infinity for bad data."""
    return float(max(one.detach().to("cpu", torch.float64).abs().max() for one in tensors)) or 1.0


def _psnr_db(reference: Tensor, output: Tensor, peak: float | None) -> float:
    if peak is None:  # divided by it, so that the squares of large values stay finite
        largest = float(reference.abs().max())
        reference, output = reference / (largest or 1.0), output / (largest or 1.0)
        peak = float(largest > 0)
    return _decibels(peak * peak, float((output - reference).square().mean()))


def _cosine(reference: Tensor, output: Tensor) -> float:
    largest, other_largest = float(reference.abs().max()), float(output.abs().max())
    if largest == 0 or other_largest == 0:
        return float(largest == other_largest)
    one, other = reference / largest, output / other_largest
    value = float((one * other).sum() / (one.norm() * other.norm()))
    return max(-1.0, min(1.0, value))


def _decibels(signal: float, noise: float) -> float:
    """10 log10(signal / noise) within the limit; no noise is the best, also without a signal."""
    if noise == 0:
        return DB_LIMIT
    if signal == 0:
        return -DB_LIMIT
    ratio = 10 * (math.log10(signal) - math.log10(noise))
    return max(-DB_LIMIT, min(DB_LIMIT, ratio))


def _ssim(reference: Tensor, output: Tensor) -> float:
    from torchmetrics.functional.image import structural_similarity_index_measure

    shortest = min(reference.shape[1:3])
    # torchmetrics cuts the Gaussian at 3.5 sigma and mirrors as many pixels, which must be there.
    sigma = min(_SSIM_SIGMA, max(0.1, (shortest - 1) / 3.5))
    one, other = output.movedim(-1, 1), reference.movedim(-1, 1)
    margin = int(3.5 * sigma + 0.5)
    height = one.shape[2]
    total = 0.0
    # In one piece torch lays out 121 copies of the picture, which are gigabytes at 1024 x 1024. Strips that overlap by the
    # window have the same values where they do not end.
    for start in range(0, height, _SSIM_ROWS):
        stop = min(start + _SSIM_ROWS, height)
        first, last = max(0, start - margin), min(height, stop + margin)
        if height - last <= margin:  # what is left is too low to be mirrored
            stop = last = height
        _, values = structural_similarity_index_measure(
            one[:, :, first:last],
            other[:, :, first:last],
            sigma=sigma,
            data_range=1.0,
            return_full_image=True,
        )
        total += float(values[:, :, start - first : stop - first].sum())
        if stop == height:
            break
    return total / one.numel()
