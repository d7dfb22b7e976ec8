"""All numbers of small float types, and how far values are from the nearest of them."""

from __future__ import annotations

import ml_dtypes
import numpy as np

__all__ = ["FLOAT4", "FLOAT8", "nearest_error"]


def _numbers(kind, count):
    codes = np.arange(count, dtype=np.uint8)
    found = codes.view(kind).astype(np.float64)
    return np.unique(found[np.isfinite(found)])


FLOAT4 = _numbers(ml_dtypes.float4_e2m1fn, 16)
FLOAT8 = _numbers(ml_dtypes.float8_e4m3fn, 256)


def nearest_error(values, table):
    """Distance from each value to the nearest number of a table, in float64."""
    return np.abs(values[..., None] - table).min(axis=-1)
