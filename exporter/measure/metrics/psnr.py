"""Peak signal-to-noise ratio."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from qdx.exporter.measure.metrics.metric import Metric
from qdx.exporter.measure.metrics.tensors import DB_LIMIT, decibels, in_float64

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["PSNR", "psnr_db"]


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
    return in_float64(reference, output, lambda a, b: _psnr_db(a, b, peak))


def _psnr_db(reference: Tensor, output: Tensor, peak: float | None) -> float:
    if peak is None:  # divided by it, so that the squares of large values stay finite
        most = float(reference.abs().max())
        reference, output = reference / (most or 1.0), output / (most or 1.0)
        peak = float(most > 0)
    return decibels(peak * peak, float((output - reference).square().mean()))


PSNR: Final = Metric(
    "psnr_db",
    label="PSNR",
    unit="dB",
    better="more",
    compute=psnr_db,
    levels=frozenset({"component", "pipeline"}),
    meaning="peak signal-to-noise ratio, in decibels",
    gate_range=(0.0, DB_LIMIT),
    scaled=True,
    twice=lambda value_db: value_db - 10 * math.log10(2),  # twice the mean square
)
