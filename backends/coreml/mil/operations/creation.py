"""Tensors made from sizes and numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from qdx.backends.coreml.mil.arguments import bounded, integer, ints, number
from qdx.backends.coreml.mil.registry import operation


@operation("fill", moves=True)
def fill(shape: Tensor, value: Tensor | None = None) -> Tensor:
    return _filled(ints(shape, []), value)


@operation("fill_like", moves=True)
def fill_like(ref_tensor: Tensor, value: Tensor | None = None) -> Tensor:
    return _filled(list(ref_tensor.shape), value)


@operation("shape", moves=True)
def shape_of(x: Tensor) -> Tensor:
    return torch.tensor(x.shape, dtype=torch.int32)


@operation("range_1d")
def range_1d(start: Tensor, end: Tensor, step: Tensor) -> Tensor:
    """From `start` in steps, without `end`."""
    by = number(step, 1.0)
    if not by:
        raise ValueError("a step of 0")
    bounded([max(0, int((number(end, 0.0) - number(start, 0.0)) / by))])
    return torch.arange(start.item(), end.item(), step.item(), dtype=start.dtype)


@operation("one_hot", moves=True)
def one_hot(
    indices: Tensor,
    one_hot_vector_size: Tensor,
    axis: Tensor | None = None,
    on_value: Tensor | None = None,
    off_value: Tensor | None = None,
) -> Tensor:
    """A new axis, which is `on_value` at the index and `off_value` elsewhere."""
    (size,) = bounded([integer(one_hot_vector_size, 1)])
    on = torch.tensor(1, dtype=torch.int32) if on_value is None else on_value
    off = torch.zeros_like(on) if off_value is None else off_value
    chosen = indices.unsqueeze(-1) == torch.arange(size)
    return torch.where(chosen, on, off).movedim(-1, integer(axis, -1))


@operation("band_part", moves=True)
def band_part(x: Tensor, lower: Tensor | None = None, upper: Tensor | None = None) -> Tensor:
    """Zero outside so many diagonals below and above; all of a side where the number is negative."""
    below, above = integer(lower, -1), integer(upper, -1)
    row = torch.arange(x.shape[-2]).unsqueeze(-1)
    column = torch.arange(x.shape[-1])
    kept = torch.ones(x.shape[-2:], dtype=torch.bool)
    if below >= 0:
        kept &= row - column <= below
    if above >= 0:
        kept &= column - row <= above
    return torch.where(kept, x, torch.zeros((), dtype=x.dtype))


def _filled(shape: list[int], value: Tensor | None) -> Tensor:
    chosen = torch.zeros(()) if value is None else value
    return torch.full(bounded(shape), chosen.item(), dtype=chosen.dtype)
