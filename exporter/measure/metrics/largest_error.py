"""The largest error of one element."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qdx.exporter.measure.metrics.metric import Metric
from qdx.exporter.measure.metrics.tensors import in_float64

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["MAX_ABS_ERR", "max_abs_err"]


def max_abs_err(reference: Tensor, output: Tensor) -> float:
    """Largest absolute difference of two elements; NaN for bad data."""
    return in_float64(reference, output, lambda a, b: float((b - a).abs().max()))


MAX_ABS_ERR: Final = Metric(
    "max_abs_err",
    label="largest error",
    unit="",
    better="less",
    compute=max_abs_err,
    levels=frozenset({"component"}),
    meaning="absolute difference of two elements",
)
