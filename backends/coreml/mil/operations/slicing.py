"""Parts of tensors, and tensors with more around them."""

from __future__ import annotations

import torch
from torch import Tensor

from qdx.backends.coreml.mil.arguments import bounded, ints
from qdx.backends.coreml.mil.registry import operation


@operation("slice_by_index", moves=True)
def slice_by_index(
    x: Tensor,
    begin: Tensor,
    end: Tensor,
    stride: Tensor | None = None,
    begin_mask: Tensor | None = None,
    end_mask: Tensor | None = None,
    squeeze_mask: Tensor | None = None,
) -> Tensor:
    """As Python slices: masks leave a bound out, or take one element and drop its axis."""
    return x[_index(x, begin, end, stride, begin_mask, end_mask, squeeze_mask)]


@operation("slice_update", moves=True)
def slice_update(
    x: Tensor,
    update: Tensor,
    begin: Tensor,
    end: Tensor,
    stride: Tensor | None = None,
    begin_mask: Tensor | None = None,
    end_mask: Tensor | None = None,
    squeeze_mask: Tensor | None = None,
) -> Tensor:
    """A copy with the slice replaced."""
    index = _index(x, begin, end, stride, begin_mask, end_mask, squeeze_mask)
    if x[index].shape != update.shape:
        raise ValueError(f"update of shape {list(update.shape)} for {list(x[index].shape)}")
    result = x.clone()
    result[index] = update
    return result


@operation("slice_by_size", moves=True)
def slice_by_size(x: Tensor, begin: Tensor, size: Tensor) -> Tensor:
    """A size of -1 takes all that follows."""
    for axis, (start, count) in enumerate(zip(ints(begin, []), ints(size, []), strict=True)):
        first = start + x.shape[axis] if start < 0 else start
        x = x.narrow(axis, first, x.shape[axis] - first if count == -1 else count)
    return x


@operation("pad", moves=True)
def pad(
    x: Tensor, pad: Tensor, mode: str = "constant", constant_val: Tensor | None = None
) -> Tensor:
    """Pairs for the last axes, in their order: how many elements come before, how many after."""
    pairs = pad.reshape(-1, 2).tolist()
    for index, (before, after) in enumerate(pairs):
        axis = x.ndim - len(pairs) + index
        bounded([*x.shape[:axis], before, x.shape[axis], after])
        if mode == "constant":
            x = _surrounded(x, axis, before, after, constant_val)
        elif before or after:
            x = x.index_select(axis, _positions(x.shape[axis], before, after, mode))
    return x


def _surrounded(x: Tensor, axis: int, before: int, after: int, value: Tensor | None) -> Tensor:
    fill = 0 if value is None else value.item()

    def part(size: int) -> list[Tensor]:
        shape = [*x.shape[:axis], size, *x.shape[axis + 1 :]]
        return [torch.full(shape, fill, dtype=x.dtype)] if size else []

    return torch.cat([*part(before), x, *part(after)], axis)


def _positions(size: int, before: int, after: int, mode: str) -> Tensor:
    positions = torch.arange(-before, size + after)
    if mode == "replicate":
        return positions.clamp(0, size - 1)
    if mode == "reflect" and max(before, after) < size:
        # Mirrored about the first and last elements, which are not repeated.
        return (size - 1) - ((size - 1) - positions.abs()).abs()
    raise ValueError(f"mode {mode} with {before} and {after} around {size}")


def _index(
    x: Tensor,
    begin: Tensor,
    end: Tensor,
    stride: Tensor | None,
    begin_mask: Tensor | None,
    end_mask: Tensor | None,
    squeeze_mask: Tensor | None,
) -> tuple[slice | int | Tensor, ...]:
    rank = x.ndim
    no_begin, no_end = ints(begin_mask, [0] * rank), ints(end_mask, [0] * rank)
    single, steps = ints(squeeze_mask, [0] * rank), ints(stride, [1] * rank)
    index: list[slice | int | Tensor] = []
    backwards: list[int] = []
    for axis, (first, last) in enumerate(zip(ints(begin, []), ints(end, []), strict=True)):
        if single[axis]:
            index.append(first)
            continue
        whole = slice(
            None if no_begin[axis] else first, None if no_end[axis] else last, steps[axis]
        )
        index.append(whole if steps[axis] > 0 else _listed(whole, x.shape[axis]))
        backwards += [] if steps[axis] > 0 else [axis]
    if len(backwards) > 1:
        raise ValueError("several axes are read backwards")
    return tuple(index)


def _listed(part: slice, size: int) -> Tensor:
    """Positions of a slice that runs backwards, which torch does not slice."""
    return torch.tensor(list(range(*part.indices(size))), dtype=torch.int64)
