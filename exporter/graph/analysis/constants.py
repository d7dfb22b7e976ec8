"""Constants of a float32 graph that sixteen bits do not hold: numbers, and what masks or stands for infinity."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qdx.exporter.dtypes import number_type

__all__ = ["MASKED", "holds_infinity", "is_beyond", "masking"]

_INFINITE: Final = 1e38
"""Magnitude from which a constant stands for infinity, as in masks of attention."""
MASKED: Final = 3e4
"""What stands for infinity in sixteen bits: two such masks and a score add up to less than float16 ends at, and real
infinities make a softmax not-a-number."""


def holds_infinity(values: NDArray[Any], dtype: str = "float16") -> bool:
    """Whether an array has infinities, or numbers that stand for them: negative ones beyond a type do, in masks."""
    return not bool(_is_finite(values, dtype).all())


def is_beyond(values: NDArray[Any], dtype: str) -> bool:
    """Whether an array has a number that a type does not hold, infinity and what stands for it left aside."""
    return bool(((values > number_type(dtype).maximum) & _is_finite(values, dtype)).any())


def masking(values: NDArray[Any], dtype: str = "float16") -> NDArray[Any]:
    """An array with what masks in sixteen bits in the place of infinities; its type and its other numbers stay."""
    kept = _is_finite(values, dtype) | np.isnan(values)
    return np.where(kept, values, np.sign(values) * MASKED).astype(values.dtype)


def _is_finite(values: NDArray[Any], dtype: str) -> NDArray[np.bool_]:
    return (values < _INFINITE) & (values >= max(number_type(dtype).minimum, -_INFINITE))
