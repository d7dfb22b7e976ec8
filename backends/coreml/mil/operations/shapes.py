"""The same values in another shape or order."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from qdx.backends.coreml.mil.arguments import axes_of, axis_of, bounded, flag, integer, ints
from qdx.backends.coreml.mil.registry import operation


@operation("reshape", moves=True)
def reshape(x: Tensor, shape: Tensor) -> Tensor:
    """-1 takes what is left; 0 takes the axis of `x` that stands as far from the end, or 1 where there is none."""
    sizes = ints(shape, [])
    for index, size in enumerate(sizes):
        if size == 0:
            from_end = index - len(sizes)
            sizes[index] = x.shape[from_end] if -from_end <= x.ndim else 1
    return x.reshape(sizes)


@operation("reshape_like", moves=True)
def reshape_like(
    x: Tensor,
    ref_tensors: list[Tensor],
    begins: list[Tensor],
    ends: list[Tensor],
    end_masks: list[Tensor],
) -> Tensor:
    sizes: list[int] = []
    for tensor, begin, end, mask in zip(ref_tensors, begins, ends, end_masks, strict=True):
        stop = None if flag(mask, default=False) else integer(end, 0)
        sizes += tensor.shape[integer(begin, 0) : stop]
    return x.reshape(sizes)


@operation("expand_dims", moves=True)
def expand_dims(x: Tensor, axes: Tensor) -> Tensor:
    """Axes are those of the result."""
    rank = x.ndim + axes.numel()
    for axis in sorted(axes_of(axes, rank)):
        x = x.unsqueeze(axis)
    return x


@operation("squeeze", moves=True)
def squeeze(x: Tensor, axes: Tensor | None = None) -> Tensor:
    """Axes of other sizes than 1 stay."""
    for axis in sorted(axes_of(axes, x.ndim), reverse=True):
        x = x.squeeze(axis)
    return x


@operation("transpose", moves=True)
def transpose(x: Tensor, perm: Tensor) -> Tensor:
    return x.permute(ints(perm, []))


@operation("flatten2d", moves=True)
def flatten2d(x: Tensor, axis: Tensor | None = None) -> Tensor:
    at = integer(axis, 1)
    at = at + x.ndim if at < 0 else at
    return x.reshape(math.prod(x.shape[:at]), -1)


@operation("concat", moves=True)
def concat(values: list[Tensor], axis: Tensor, interleave: Tensor | None = None) -> Tensor:
    along = axis_of(axis, 0, values[0].ndim)
    if flag(interleave, default=False):
        return torch.stack(values, along + 1).flatten(along, along + 1)
    return torch.cat(values, along)


@operation("stack", moves=True)
def stack(values: list[Tensor], axis: Tensor) -> Tensor:
    return torch.stack(values, axis_of(axis, 0, values[0].ndim + 1))


@operation("split", moves=True)
def split(
    x: Tensor,
    axis: Tensor,
    num_splits: Tensor | None = None,
    split_sizes: Tensor | None = None,
) -> tuple[Tensor, ...]:
    along = axis_of(axis, 0, x.ndim)
    if split_sizes is not None:
        return torch.split_with_sizes(x, ints(split_sizes, []), along)
    count = integer(num_splits, 0)
    if count < 1 or x.shape[along] % count:
        raise ValueError(f"{x.shape[along]} elements in {count} parts")
    return torch.chunk(x, count, along)


@operation("identity", moves=True)
def identity(x: Tensor) -> Tensor:
    return x


@operation("reverse", moves=True)
def reverse(x: Tensor, axes: Tensor | None = None) -> Tensor:
    return x.flip(axes_of(axes, x.ndim))


@operation("tile", moves=True)
def tile(x: Tensor, reps: Tensor) -> Tensor:
    counts = ints(reps, [])
    bounded([size * count for size, count in zip(x.shape, counts, strict=True)])
    return x.repeat(counts)


@operation("pixel_shuffle", moves=True)
def pixel_shuffle(x: Tensor, upscale_factor: Tensor) -> Tensor:
    return torch.pixel_shuffle(x, integer(upscale_factor, 1))


@operation("pixel_unshuffle", moves=True)
def pixel_unshuffle(x: Tensor, downscale_factor: Tensor) -> Tensor:
    return torch.pixel_unshuffle(x, integer(downscale_factor, 1))


@operation("depth_to_space", moves=True)
def depth_to_space(x: Tensor, block_size: Tensor) -> Tensor:
    """Unlike `pixel_shuffle`, the places of a block are the outer part of the channels."""
    size = integer(block_size, 1)
    batch, channels, height, width = x.shape
    blocks = x.reshape(batch, size, size, channels // size**2, height, width)
    return blocks.permute(0, 3, 4, 1, 5, 2).reshape(batch, -1, height * size, width * size)


@operation("space_to_depth", moves=True)
def space_to_depth(x: Tensor, block_size: Tensor) -> Tensor:
    """Undoes `depth_to_space`."""
    size = integer(block_size, 1)
    batch, channels, height, width = x.shape
    blocks = x.reshape(batch, channels, height // size, size, width // size, size)
    return blocks.permute(0, 3, 5, 1, 2, 4).reshape(batch, -1, height // size, width // size)


@operation("sliding_windows", moves=True)
def sliding_windows(x: Tensor, axis: Tensor, size: Tensor, stride: Tensor | None = None) -> Tensor:
    """Windows along an axis, their elements on a new axis behind it."""
    along = axis_of(axis, 0, x.ndim)
    windows: Tensor = x.unfold(along, integer(size, 1), integer(stride, 1))
    return windows.movedim(-1, along + 1)
