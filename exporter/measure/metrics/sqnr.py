"""Signal-to-quantization-noise ratio."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from qdx.exporter.measure.metrics.metric import Metric
from qdx.exporter.measure.metrics.tensors import DB_LIMIT, blocks, decibels, largest

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SQNR", "sqnr_db"]


def sqnr_db(reference: Tensor, output: Tensor) -> float:
    """Signal-to-quantization-noise ratio: 10 log10(sum(reference^2) / sum((output - reference)^2)).

    Args:
        reference: Any shape; any dtype but complex.
        output: The same shape; the dtype may differ.

    Returns:
        Decibels within plus or minus `DB_LIMIT`; NaN for bad data.
    """
    import torch

    if reference.shape != output.shape or reference.numel() == 0:
        return math.nan
    # A common factor does not change the ratio and keeps the squares of large values finite.
    scale = largest(reference, output) if torch.float64 in (reference.dtype, output.dtype) else 1.0
    signal = noise = 0.0
    for one, other in blocks(reference, output, scale=scale):
        error = other.sub_(one)
        signal += float(one.dot(one))
        noise += float(error.dot(error))
    if not math.isfinite(signal + noise):  # as every value that is not finite makes one of them
        return math.nan
    return decibels(signal, noise)


SQNR: Final = Metric(
    "sqnr_db",
    label="SQNR",
    unit="dB",
    better="more",
    compute=sqnr_db,
    levels=frozenset({"component", "lowering"}),
    meaning="signal-to-quantization-noise ratio, in decibels",
    gate_range=(0.0, DB_LIMIT),
)
