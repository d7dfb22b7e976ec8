"""The angle between a reference and an output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qdx.exporter.measure.metrics.metric import Metric
from qdx.exporter.measure.metrics.tensors import in_float64

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["COSINE", "cosine"]


def cosine(reference: Tensor, output: Tensor) -> float:
    """Cosine of the angle between both as vectors, from -1 to 1.

    Two zero vectors have 1, a zero vector and another have 0. NaN for bad data.
    """
    return in_float64(reference, output, _cosine)


def _cosine(reference: Tensor, output: Tensor) -> float:
    largest, other_largest = float(reference.abs().max()), float(output.abs().max())
    if largest == 0 or other_largest == 0:
        return float(largest == other_largest)
    one, other = reference / largest, output / other_largest
    value = float((one * other).sum() / (one.norm() * other.norm()))
    return max(-1.0, min(1.0, value))


COSINE: Final = Metric(
    "cosine",
    label="cosine",
    unit="",
    better="more",
    compute=cosine,
    levels=frozenset({"component"}),
    meaning="cosine of the angle between output and reference as vectors, from -1 to 1",
    gate_range=(-1.0, 1.0),
)
