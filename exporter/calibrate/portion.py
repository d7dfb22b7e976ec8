"""What is taken of some values of an activation on the device where they lie, before anybody reads a number of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import torch

from qdx.exporter.dtypes import number_type

__all__ = ["Portion", "portion_of"]

_FLOAT32_MAX: Final = float(number_type("float32").maximum)


@dataclass(frozen=True)
class Portion:
    """What is taken of some values.

    Attributes:
        elements: How many values.
        extremes: The least and the greatest, of no dimension; NaN where a value is.
        channel_extremes: Likewise of each channel, [channels]; None where no channels are observed.
        channel_sum: Sums of the channels, [channels]; None where `sums` adds up the values.
        sampled: The values that a histogram counts, in one row.
        values: All values, float32; None where they are gone.
        others: The dimensions that are not the channels'.
    """

    elements: int
    extremes: tuple[torch.Tensor, torch.Tensor]
    channel_extremes: tuple[torch.Tensor, torch.Tensor] | None
    channel_sum: torch.Tensor | None
    sampled: torch.Tensor = field(repr=False)
    values: torch.Tensor | None = field(repr=False)
    others: tuple[int, ...]

    def sums(self, largest: float) -> torch.Tensor:
        """Sums of the channels, [channels], of values whose magnitudes are no larger than `largest`."""
        if self.channel_sum is not None:
            return self.channel_sum
        assert self.values is not None
        # PyTorch adds up in a tree, so that float32 serves within a call; calls add up in float64.
        large = largest * self.elements >= _FLOAT32_MAX
        return self.values.sum(self.others, dtype=torch.float64 if large else None)


def portion_of(
    values: torch.Tensor,
    axis: int | None,
    stride: int,
    *,
    first: int = 0,
    outlasts: bool = False,
) -> Portion:
    """Reduces some values, as far as that needs no number of theirs.

    Args:
        values: float32, any shape, at least one.
        axis: Dimension of the channels, from the front; None observes none.
        stride: Every how many values one is sampled.
        first: The first one that is, counted in the order of memory; none is where there are no more values.
        outlasts: Whether the portion is taken when the values are gone.
    """
    others: tuple[int, ...] = ()
    of_channels: tuple[torch.Tensor, torch.Tensor] | None = None
    sums: torch.Tensor | None = None
    extremes = values, values
    if axis is not None:
        others = tuple(dim for dim in range(values.dim()) if dim != axis)
        if others:
            extremes = values.amin(others), values.amax(others)
            sums = values.sum(others, dtype=torch.float64) if outlasts else None
        else:
            sums = values.clone() if outlasts else values
            extremes = sums, sums
        of_channels = extremes
    # As `[first::stride]`, which Python's indexing refuses to tensors without values.
    sampled = torch.ops.aten.slice.Tensor(_in_order_of_memory(values), 0, first, None, stride)
    return Portion(
        values.numel(),
        (extremes[0].amin(), extremes[1].amax()),
        of_channels,
        sums,
        sampled.clone() if outlasts else sampled,
        None if outlasts else values,
        others,
    )


def _in_order_of_memory(values: torch.Tensor) -> torch.Tensor:
    """All values in one row, without a copy where they lie densely in memory in any order of dimensions."""
    order = sorted(range(values.dim()), key=values.stride, reverse=True)
    return values.permute(order).reshape(-1)
