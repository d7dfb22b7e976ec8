"""Images made larger or smaller: the last two axes, or those that are named."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from qdx.backends.coreml.mil.arguments import bounded, flag, integer, ints, number
from qdx.backends.coreml.mil.registry import operation


@operation("upsample_nearest_neighbor", moves=True)
def upsample_nearest_neighbor(
    x: Tensor,
    scale_factor_height: Tensor | None = None,
    scale_factor_width: Tensor | None = None,
) -> Tensor:
    for axis, factor in ((-2, scale_factor_height), (-1, scale_factor_width)):
        scale = number(factor, 1.0)
        (size,) = bounded([math.floor(x.shape[axis] * scale)])
        x = _nearest(x, axis, size, 1 / scale)
    return x


@operation("resize_nearest_neighbor", moves=True)
def resize_nearest_neighbor(
    x: Tensor, target_size_height: Tensor, target_size_width: Tensor
) -> Tensor:
    for axis, target in ((-2, target_size_height), (-1, target_size_width)):
        (size,) = bounded([integer(target, 1)])
        x = _nearest(x, axis, size, x.shape[axis] / size)
    return x


@operation("upsample_bilinear")
def upsample_bilinear(
    x: Tensor,
    scale_factor_height: Tensor | None = None,
    scale_factor_width: Tensor | None = None,
    align_corners: Tensor | None = None,
    half_pixel_centers: Tensor | None = None,
) -> Tensor:
    """The spacing is that of the sizes, not of the factors: they differ where a size is rounded."""
    align = flag(align_corners, default=True)
    half = flag(half_pixel_centers, default=not align)
    if align and half:
        raise ValueError("align_corners and half_pixel_centers exclude each other")
    mode = "STRICT_ALIGN_CORNERS" if align else "UNALIGN_CORNERS" if half else "DEFAULT"
    for axis, factor in ((-2, scale_factor_height), (-1, scale_factor_width)):
        x = _linear(x, axis, math.floor(x.shape[axis] * number(factor, 1.0)), mode)
    return x


@operation("resize_bilinear")
def resize_bilinear(
    x: Tensor,
    target_size_height: Tensor | None = None,
    target_size_width: Tensor | None = None,
    sampling_mode: str = "DEFAULT",
) -> Tensor:
    x = _linear(x, -2, integer(target_size_height, 1), sampling_mode)
    return _linear(x, -1, integer(target_size_width, 1), sampling_mode)


@operation("resize")
def resize(
    x: Tensor,
    shape: Tensor,
    resized_dims: Tensor,
    interpolation_mode: str = "LINEAR",
    sampling_mode: str = "DEFAULT",
) -> Tensor:
    """The last `resized_dims` axes; a size of zero keeps the axis."""
    if interpolation_mode not in {"LINEAR", "NEAREST_NEIGHBOR"}:
        raise ValueError(f"interpolation_mode {interpolation_mode}")
    sizes, count = ints(shape, []), integer(resized_dims, 0)
    for axis in range(-count, 0):
        size = sizes[axis] or x.shape[axis]
        if interpolation_mode == "LINEAR":
            x = _linear(x, axis, size, sampling_mode)
        elif sampling_mode == "DEFAULT":
            x = _nearest(x, axis, bounded([size])[0], x.shape[axis] / size)
        else:
            raise ValueError(f"nearest neighbours with sampling_mode {sampling_mode}")
    return x


def _nearest(x: Tensor, axis: int, size: int, spacing: float) -> Tensor:
    """Each result takes the element at or before its own position."""
    position = (torch.arange(size, dtype=torch.float64) * spacing).floor().long()
    return x.index_select(axis, position.clamp_max(x.shape[axis] - 1))


def _linear(x: Tensor, axis: int, size: int, mode: str) -> Tensor:
    """Interpolates between the two elements around each position."""
    last = x.shape[axis] - 1
    grid = _grid(last + 1, bounded([size])[0], mode).clamp(0, last)
    below = grid.floor().long()
    above = (below + 1).clamp_max(last)
    share = (grid - below).to(x.dtype).reshape(-1, *[1] * (-1 - axis))
    low, high = x.index_select(axis, below), x.index_select(axis, above)
    return low * (1 - share) + high * share


def _grid(given: int, wanted: int, mode: str) -> Tensor:
    """Positions among `given` elements at which `wanted` results are sampled."""
    index = torch.arange(wanted, dtype=torch.float64)
    if mode in {"STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"}:
        if wanted == 1:
            middle = (given - 1) / 2 if mode == "ALIGN_CORNERS" else 0.0
            return torch.full((1,), middle, dtype=torch.float64)
        return index * ((given - 1) / (wanted - 1))
    if mode == "DEFAULT":
        return index * (given / wanted)
    if mode == "OFFSET_CORNERS":
        return (index + 0.5) * (max(1, given - 1) / wanted)
    if mode == "UNALIGN_CORNERS":
        return (index + 0.5) * (given / wanted) - 0.5
    raise ValueError(f"sampling_mode {mode}")
