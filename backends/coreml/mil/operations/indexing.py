"""Elements taken from, and put to, positions that are computed."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from qdx.backends.coreml.mil.arguments import axis_of, flag, integer
from qdx.backends.coreml.mil.registry import operation

# Positions are checked always.
_UNCHECKED: Final = frozenset({"validate_indices"})


@operation("gather", moves=True, ignores=_UNCHECKED)
def gather(
    x: Tensor,
    indices: Tensor,
    axis: Tensor | None = None,
    batch_dims: Tensor | None = None,
) -> Tensor:
    """Slices along an axis; negative indices count from the end, and those outside are an error."""
    along, batch = axis_of(axis, 0, x.ndim), integer(batch_dims, 0)
    index = _from_front(indices, x.shape[along])
    if not batch:
        found = x.index_select(along, index.reshape(-1))
        return found.reshape(*x.shape[:along], *index.shape, *x.shape[along + 1 :])
    leading = x.shape[:batch]
    values, places = x.flatten(0, batch - 1), index.reshape(-1, *index.shape[batch:])
    parts = [
        part.index_select(along - batch, place.reshape(-1)).reshape(
            *x.shape[batch:along], *place.shape, *x.shape[along + 1 :]
        )
        for part, place in zip(values, places, strict=True)
    ]
    return torch.stack(parts).reshape(*leading, *parts[0].shape)


@operation("gather_along_axis", moves=True, ignores=_UNCHECKED)
def gather_along_axis(
    x: Tensor,
    indices: Tensor,
    axis: Tensor | None = None,
) -> Tensor:
    along = axis_of(axis, 0, x.ndim)
    return x.gather(along, _from_front(indices, x.shape[along]))


@operation("gather_nd", moves=True, ignores=_UNCHECKED)
def gather_nd(
    x: Tensor,
    indices: Tensor,
    batch_dims: Tensor | None = None,
) -> Tensor:
    """The last axis of `indices` names a position in the first axes of `x` behind those of the batch."""
    batch = integer(batch_dims, 0)
    if not batch:
        return x[_positions(x, indices)]
    values, places = x.flatten(0, batch - 1), indices.reshape(-1, *indices.shape[batch:])
    parts = [part[_positions(part, place)] for part, place in zip(values, places, strict=True)]
    return torch.stack(parts).reshape(*x.shape[:batch], *parts[0].shape)


@operation("scatter", ignores=_UNCHECKED)
def scatter(
    data: Tensor,
    indices: Tensor,
    updates: Tensor,
    axis: Tensor | None = None,
    mode: str = "add",
) -> Tensor:
    along = axis_of(axis, 0, data.ndim)
    index = _from_front(indices, data.shape[along])
    before = [slice(None)] * along
    return _put(data, (*before, index), updates, mode)


@operation("scatter_nd", ignores=_UNCHECKED)
def scatter_nd(
    data: Tensor,
    indices: Tensor,
    updates: Tensor,
    mode: str = "add",
) -> Tensor:
    return _put(data, _positions(data, indices), updates, mode)


@operation("scatter_along_axis", ignores=_UNCHECKED)
def scatter_along_axis(
    data: Tensor,
    indices: Tensor,
    updates: Tensor,
    axis: Tensor | None = None,
    mode: str = "add",
) -> Tensor:
    along = axis_of(axis, 0, data.ndim)
    index = _from_front(indices, data.shape[along])
    if mode == "update":
        return data.scatter(along, index, updates)
    if mode not in {"add", "sub"}:
        raise ValueError(f"mode {mode}")
    return data.scatter_add(along, index, updates if mode == "add" else -updates)


@operation("argsort", ignores=frozenset({"output_dtype"}))
def argsort(
    x: Tensor,
    axis: Tensor | None = None,
    ascending: Tensor | None = None,
) -> Tensor:
    descending = not flag(ascending, default=False)
    return torch.sort(x, dim=axis_of(axis, -1, x.ndim), descending=descending, stable=True)[1]


@operation("topk", ignores=frozenset({"sort", "output_indices_dtype"}))
def topk(
    x: Tensor,
    k: Tensor | None = None,
    axis: Tensor | None = None,
    ascending: Tensor | None = None,
    return_indices: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Sorted always, which `sort` allows either way; -1 takes all."""
    along = axis_of(axis, -1, x.ndim)
    descending = not flag(ascending, default=False)
    values, places = torch.sort(x, dim=along, descending=descending, stable=True)
    count = integer(k, 1)
    count = x.shape[along] if count == -1 else count
    found = values.narrow(along, 0, count), places.narrow(along, 0, count)
    return found if flag(return_indices, default=True) else found[:1]


@operation("non_zero")
def non_zero(x: Tensor) -> Tensor:
    return x.nonzero()


def _from_front(indices: Tensor, size: int) -> Tensor:
    index = indices.long()
    return torch.where(index < 0, index + size, index)


def _positions(x: Tensor, indices: Tensor) -> tuple[Tensor, ...]:
    return tuple(_from_front(part, x.shape[axis]) for axis, part in enumerate(indices.unbind(-1)))


def _put(data: Tensor, index: tuple[slice | Tensor, ...], updates: Tensor, mode: str) -> Tensor:
    result = data.clone()
    if mode == "update":
        result[index] = updates
        return result
    if mode not in {"add", "sub"}:
        raise ValueError(f"mode {mode}")
    # Positions may occur several times, and all of their updates count.
    places = torch.arange(data.numel()).reshape(data.shape)[index].reshape(-1)
    signed = updates if mode == "add" else -updates
    flat = result.reshape(-1).index_add(0, places, signed.expand(data[index].shape).reshape(-1))
    return flat.reshape(data.shape)
