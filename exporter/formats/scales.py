"""Scale and zero point of a range. Imports no torch."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Final

from qdx.exporter.dtypes import NumberType, number_type
from qdx.exporter.errors import InternalError

__all__ = ["SMALLEST_SCALE", "QParams", "choose_qparams"]

SMALLEST_SCALE: Final = 2.0**-126
"""The least normal float32: kernels may flush what is smaller to zero, and then divide by it."""


@dataclass(frozen=True)
class QParams:
    """How integers stand for numbers: x = (q - zero_point) * scale.

    Attributes:
        scale: A float32 value, finite and at least `SMALLEST_SCALE`.
        zero_point: In the dtype's range, so that zero is represented exactly.
    """

    scale: float
    zero_point: int


def choose_qparams(low: float, high: float, dtype: str | NumberType, *, symmetric: bool) -> QParams:
    """Scale and zero point for values in [low, high]; the range is widened to contain zero.

    Symmetric: scale = max(|low|, |high|) / m, with m steps above the zero point (127 for eight bits);
    the zero point is 0, or the middle for unsigned dtypes. The lowest integer stays in use: some
    kernels assume all 256 levels. Asymmetric: scale = (high - low) / (maximum - minimum) and
    zero_point = round(minimum - low / scale), see https://arxiv.org/abs/1712.05877, section 3.

    Args:
        low: Least value; finite.
        high: Greatest value; finite, not below `low`.
        dtype: A quantized dtype or its name.
        symmetric: Whether the range is centred on zero.

    Raises:
        InternalError: The bounds are not finite or in the wrong order.
    """
    kind = number_type(dtype) if isinstance(dtype, str) else dtype
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise InternalError(f"[{low}, {high}] is not a range")
    low, high = min(low, 0.0), max(high, 0.0)
    if symmetric or kind.is_float:
        return QParams(_scale(max(-low, high), kind.maximum - kind.middle), kind.middle)
    scale = _scale(high - low, kind.maximum - kind.minimum)
    zero_point = round(kind.minimum - low / scale)  # ties to even
    return QParams(scale, min(max(zero_point, kind.minimum), kind.maximum))


def _scale(span: float, steps: int) -> float:
    """The float32 value of span / steps; 1 where there is no span."""
    if span == 0:
        return 1.0
    exact = max(span / steps, SMALLEST_SCALE)
    rounded: float = struct.unpack("f", struct.pack("f", exact))[0]
    return rounded
