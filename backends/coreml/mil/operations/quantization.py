"""Quantized activations."""

from __future__ import annotations

import torch
from torch import Tensor

from qdx.backends.coreml.mil.arguments import axis_of
from qdx.backends.coreml.mil.registry import operation

_LIMITS = {"int8": (-128, 127, torch.int8), "uint8": (0, 255, torch.uint8)}


@operation("quantize")
def quantize(
    input: Tensor,  # noqa: A002  # MIL's name
    scale: Tensor,
    output_dtype: str,
    zero_point: Tensor | None = None,
    axis: Tensor | None = None,
) -> Tensor:
    """`clip(round(input / scale) + zero_point)`; halves go to the even neighbour."""
    low, high, dtype = _LIMITS[output_dtype]
    codes = torch.round(input / _along(scale, input, axis))
    if zero_point is not None:
        codes = codes + _along(zero_point, input, axis).float()
    return codes.clamp(low, high).to(dtype)


@operation("dequantize")
def dequantize(
    input: Tensor,  # noqa: A002  # MIL's name
    scale: Tensor,
    zero_point: Tensor | None = None,
    axis: Tensor | None = None,
) -> Tensor:
    """`scale * (input - zero_point)`."""
    codes = input.float()
    if zero_point is not None:
        codes = codes - _along(zero_point, input, axis).float()
    return codes * _along(scale, input, axis)


def _along(values: Tensor, x: Tensor, axis: Tensor | None) -> Tensor:
    """One value for all, or a vector that lies along an axis."""
    if values.ndim == 0:
        return values
    if values.ndim != 1 or axis is None:
        raise ValueError(f"quantization parameters of shape {list(values.shape)} without an axis")
    along = axis_of(axis, 0, x.ndim)
    if len(values) != x.shape[along]:
        raise ValueError(f"{len(values)} quantization parameters for {x.shape[along]} channels")
    return values.reshape(-1, *[1] * (x.ndim - 1 - along))
