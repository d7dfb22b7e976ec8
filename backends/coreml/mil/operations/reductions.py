"""Operations that reduce axes to one number, and running sums."""

from __future__ import annotations

import torch
from torch import Tensor

from qdx.backends.coreml.mil.arguments import axes_of, axis_of, flag
from qdx.backends.coreml.mil.registry import operation


@operation("reduce_sum")
def reduce_sum(x: Tensor, axes: Tensor | None = None, keep_dims: Tensor | None = None) -> Tensor:
    return x.sum(axes_of(axes, x.ndim), keepdim=flag(keep_dims, default=False))


@operation("reduce_mean")
def reduce_mean(x: Tensor, axes: Tensor | None = None, keep_dims: Tensor | None = None) -> Tensor:
    return x.mean(axes_of(axes, x.ndim), keepdim=flag(keep_dims, default=False))


@operation("reduce_max")
def reduce_max(x: Tensor, axes: Tensor | None = None, keep_dims: Tensor | None = None) -> Tensor:
    return x.amax(axes_of(axes, x.ndim), keepdim=flag(keep_dims, default=False))


@operation("reduce_min")
def reduce_min(x: Tensor, axes: Tensor | None = None, keep_dims: Tensor | None = None) -> Tensor:
    return x.amin(axes_of(axes, x.ndim), keepdim=flag(keep_dims, default=False))


@operation("reduce_prod")
def reduce_prod(x: Tensor, axes: Tensor | None = None, keep_dims: Tensor | None = None) -> Tensor:
    keep = flag(keep_dims, default=False)
    for axis in sorted(axes_of(axes, x.ndim), reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


@operation("reduce_l1_norm")
def reduce_l1_norm(
    x: Tensor, axes: Tensor | None = None, keep_dims: Tensor | None = None
) -> Tensor:
    return reduce_sum(x.abs(), axes, keep_dims)


@operation("reduce_l2_norm")
def reduce_l2_norm(
    x: Tensor, axes: Tensor | None = None, keep_dims: Tensor | None = None
) -> Tensor:
    return reduce_sum_square(x, axes, keep_dims).sqrt()


@operation("reduce_log_sum")
def reduce_log_sum(
    x: Tensor, axes: Tensor | None = None, keep_dims: Tensor | None = None
) -> Tensor:
    return reduce_sum(x, axes, keep_dims).log()


@operation("reduce_log_sum_exp")
def reduce_log_sum_exp(
    x: Tensor, axes: Tensor | None = None, keep_dims: Tensor | None = None
) -> Tensor:
    return x.logsumexp(axes_of(axes, x.ndim), keepdim=flag(keep_dims, default=False))


@operation("reduce_sum_square")
def reduce_sum_square(
    x: Tensor, axes: Tensor | None = None, keep_dims: Tensor | None = None
) -> Tensor:
    return reduce_sum(x * x, axes, keep_dims)


@operation("reduce_argmax", ignores=frozenset({"output_dtype"}))
def reduce_argmax(
    x: Tensor,
    axis: Tensor | None = None,
    keep_dims: Tensor | None = None,
) -> Tensor:
    """The first of several largest."""
    return _first(x == x.amax(axis_of(axis, -1, x.ndim), keepdim=True), axis, keep_dims)


@operation("reduce_argmin", ignores=frozenset({"output_dtype"}))
def reduce_argmin(
    x: Tensor,
    axis: Tensor | None = None,
    keep_dims: Tensor | None = None,
) -> Tensor:
    return _first(x == x.amin(axis_of(axis, -1, x.ndim), keepdim=True), axis, keep_dims)


@operation("cumsum")
def cumsum(
    x: Tensor,
    axis: Tensor | None = None,
    exclusive: Tensor | None = None,
    reverse: Tensor | None = None,
) -> Tensor:
    """Sums so far; without the element itself where `exclusive`, from the end where `reverse`."""
    along = axis_of(axis, 0, x.ndim)
    backwards = flag(reverse, default=False)
    ordered = x.flip(along) if backwards else x
    sums = ordered.cumsum(along)
    if flag(exclusive, default=False):
        sums = sums - ordered
    return sums.flip(along) if backwards else sums


def _first(found: Tensor, axis: Tensor | None, keep_dims: Tensor | None) -> Tensor:
    """Where along an axis the first true element is: argmax of integers gives no order in torch."""
    along = axis_of(axis, -1, found.ndim)
    position = torch.arange(found.shape[along]).reshape(-1, *[1] * (found.ndim - 1 - along))
    behind = torch.full_like(position, found.shape[along])
    return torch.where(found, position, behind).amin(along, keepdim=flag(keep_dims, default=False))
