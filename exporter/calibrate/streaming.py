"""Statistics that are taken of an activation call by call, in memory that is the same for one call as for a million.

Observing must cost a fraction of computing, so every value is seen by the fastest reductions that there are, and the
histogram counts a fixed sample of the values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import torch

from qdx.exporter.calibrate.histogram import BINS, EXPONENTS, counts_of, exponent_for, widened
from qdx.exporter.calibrate.portion import Portion, portion_of
from qdx.exporter.calibrate.statistics import TensorStatistics
from qdx.exporter.devices import CPU

__all__ = ["SAMPLED_VALUES", "StreamingStatistics", "sampling_stride"]

SAMPLED_VALUES: Final = 2**15
"""Values of one call that the histogram of an activation counts, about; all values of smaller activations."""


def sampling_stride(elements: int) -> int:
    """Every how many values of an activation one is counted in its histogram.

    It has no divisor in common with the number of values, and so with no dimension: a walk in such strides comes to
    all channels, tokens and keys alike. Of those it is the one that samples a number nearest to `SAMPLED_VALUES`.

    Args:
        elements: Number of values of one whole call.

    >>> sampling_stride(2**15), sampling_stride(2**19), sampling_stride(3 * 2**16)
    (1, 17, 7)
    """
    wanted = max(1.0, elements / SAMPLED_VALUES)
    nearby = range(max(1, int(wanted / 2)), int(2 * wanted) + 8)
    fitting = [stride for stride in nearby if math.gcd(stride, elements) == 1]
    return min(fitting, key=lambda stride: abs(math.log(stride / wanted)), default=1)


class StreamingStatistics:
    """Statistics that take an activation call by call, or in parts of a call.

    Args:
        groups: Number of groups of timesteps.
        axis: Dimension of the channels; negative counts from the end. None observes no channels.
        channels: Their number; None takes it from the first values.
        elements: Values of one whole call, which decides the share that is sampled; None takes it from the first
            values.
        device: Where the activation lies, and histograms and channels are added up.
    """

    def __init__(
        self,
        groups: int,
        axis: int | None = None,
        *,
        channels: int | None = None,
        elements: int | None = None,
        device: torch.device = CPU,
    ) -> None:
        self._axis = axis
        self._device = device
        self._stride = None if elements is None else sampling_stride(elements)
        self._shown = 0
        self._count = [0] * groups
        self._low = [math.inf] * groups
        self._high = [-math.inf] * groups
        self._exponent = [EXPONENTS[0]] * groups
        # 32 bits hold what one sample's calls count; `merged` adds samples up in 64.
        self._histogram = torch.zeros((groups, BINS), dtype=torch.int32, device=device)
        self._channels: _Channels | None = None
        if axis is None or channels is not None:
            self._channels = _Channels(groups, channels or 0, device)

    def add(self, values: torch.Tensor, group: int = 0) -> bool:
        """Takes the next values.

        Args:
            values: Floats of any shape; the number of channels never changes.
            group: The group of timesteps that they belong to.

        Returns:
            False, and nothing is taken, where a value is NaN or infinite.
        """
        portion = self.portion(values)
        if portion is None:
            return True
        low, high = (float(extreme) for extreme in portion.extremes)
        return self.take(portion, low, high, group)

    def portion(self, values: torch.Tensor, *, outlasts: bool = False) -> Portion | None:
        """What there is to take of some values: nothing but tensors, of which no number is read.

        Args:
            values: As for `add`.
            outlasts: Whether it is taken when the values are not there any more.

        Returns:
            For `take`; None where there are no values.
        """
        values = values.detach().to(torch.float32)
        if values.numel() == 0:
            return None
        axis = self._axis
        if axis is not None and axis < 0:
            axis = self._axis = axis + values.dim()
        if self._stride is None:
            self._stride = sampling_stride(values.numel())
        if self._channels is None:
            assert axis is not None
            self._channels = _Channels(len(self._count), values.shape[axis], self._device)
        # The walk goes on from part to part: one that began anew with each block of attention would only ever come to
        # the first of its keys.
        first = -self._shown % self._stride
        self._shown += values.numel()
        return portion_of(values, axis, self._stride, first=first, outlasts=outlasts)

    def take(self, portion: Portion, low: float, high: float, group: int = 0) -> bool:
        """Takes a portion whose extremes were read.

        Returns:
            False, and nothing is taken, where a value is NaN or infinite.
        """
        if not (abs(low) < math.inf and abs(high) < math.inf):  # NaN comes through as well
            return False
        if portion.channel_extremes is not None:
            assert self._channels is not None
            self._channels.add(group, *portion.channel_extremes, portion.sums(max(-low, high)))
        self._count_sampled(portion.sampled, group, exponent_for(low, high))
        self._count[group] += portion.elements
        self._low[group] = min(self._low[group], low)
        self._high[group] = max(self._high[group], high)
        return True

    def _count_sampled(self, sampled: torch.Tensor, group: int, exponent: int) -> None:
        before = self._exponent[group]
        exponent = max(before, exponent)
        row = self._histogram.select(0, group)
        if exponent > before:
            row.copy_(widened(row, exponent - before))
            self._exponent[group] = exponent
        row += counts_of(sampled, exponent)

    @property
    def size_bytes(self) -> int:
        """Memory of the statistics."""
        channels = 0 if self._channels is None else self._channels.number
        return self.size_bytes_of(len(self._count), channels)

    @staticmethod
    def size_bytes_of(groups: int, channels: int) -> int:
        """Memory of the statistics of an activation: 32-bit counts, 32-bit extremes and 64-bit sums."""
        return groups * (BINS * 4 + channels * (4 + 4 + 8))

    def finish(self) -> TensorStatistics:
        """What was taken so far."""
        channels = (self._channels or _Channels(len(self._count), 0, self._device)).to(CPU)
        seen = [count > 0 for count in self._count]
        known = torch.tensor(seen)[:, None]
        zero = torch.zeros(())
        return TensorStatistics(
            count=torch.tensor(self._count),
            minimum=_where_seen(self._low, seen),
            maximum=_where_seen(self._high, seen),
            exponent=torch.tensor(self._exponent),
            histogram=self._histogram.to(CPU, copy=True),
            axis=self._axis if channels.number else None,
            channel_minimum=torch.where(known, channels.minimum, zero),
            channel_maximum=torch.where(known, channels.maximum, zero),
            channel_sum=channels.sum.clone(),
        )

    def restore(self, found: TensorStatistics) -> None:
        """Goes on from what `finish` returned once."""
        seen = (found.count > 0).tolist()
        self._axis = found.axis if found.channels else self._axis
        self._count = found.count.tolist()
        self._shown = sum(self._count)
        self._low = _where_not_seen(found.minimum, seen, math.inf)
        self._high = _where_not_seen(found.maximum, seen, -math.inf)
        self._exponent = found.exponent.tolist()
        self._histogram.copy_(found.histogram)
        channels = _Channels(len(seen), found.channels, CPU)
        channels.restore(found, torch.tensor(seen)[:, None])
        self._channels = channels.to(self._device)


class _Channels:
    """Extremes and sums of channels by group of timesteps, [groups, channels]."""

    def __init__(self, groups: int, channels: int, device: torch.device) -> None:
        self.number = channels
        self.minimum = torch.full((groups, channels), math.inf, device=device)
        self.maximum = torch.full((groups, channels), -math.inf, device=device)
        self.sum = torch.zeros((groups, channels), dtype=torch.float64, device=device)

    def to(self, device: torch.device) -> _Channels:
        """The same on a device; itself where it lies there."""
        if self.sum.device == device:
            return self
        moved = _Channels(len(self.sum), 0, device)
        moved.number = self.number
        moved.minimum = self.minimum.to(device)
        moved.maximum = self.maximum.to(device)
        moved.sum = self.sum.to(device)
        return moved

    def add(self, group: int, low: torch.Tensor, high: torch.Tensor, total: torch.Tensor) -> None:
        minimum, maximum = self.minimum.select(0, group), self.maximum.select(0, group)
        torch.minimum(minimum, low, out=minimum)
        torch.maximum(maximum, high, out=maximum)
        self.sum.select(0, group).add_(total)

    def restore(self, found: TensorStatistics, known: torch.Tensor) -> None:
        infinity = torch.tensor(math.inf)
        self.minimum = torch.where(known, found.channel_minimum, infinity)
        self.maximum = torch.where(known, found.channel_maximum, -infinity)
        self.sum = found.channel_sum.clone()


def _where_seen(extremes: Sequence[float], seen: Sequence[bool]) -> torch.Tensor:
    """Extremes, float32 [groups]; 0 for groups without values."""
    return torch.tensor([x if known else 0.0 for x, known in zip(extremes, seen, strict=True)])


def _where_not_seen(extremes: torch.Tensor, seen: Sequence[bool], otherwise: float) -> list[float]:
    return [x if known else otherwise for x, known in zip(extremes.tolist(), seen, strict=True)]
