"""What is kept of an activation: its exact extremes, a histogram, and extremes and means of its channels.

Everything is kept for each group of timesteps apart, and takes the same memory for one sample as for a million.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import torch

from qdx.exporter.calibrate.histogram import BINS, EXPONENTS, counts_of, exponent_for, widened
from qdx.exporter.calibrate.observers import Observer, range_of
from qdx.exporter.errors import InvalidInput, UsageError

__all__ = ["StreamingStatistics", "TensorStatistics"]

# Values that are counted at once.
_PORTION: Final = 2**22


@dataclass(frozen=True)
class TensorStatistics:
    """Statistics of one activation.

    Attributes:
        count: Number of values, int64 [groups].
        minimum: float32 [groups]; 0 for a group without values.
        maximum: Likewise.
        exponent: k of each histogram's range [-2^k, 2^k), int64 [groups].
        histogram: Numbers of values in equal bins of that range, int64 [groups, 2048].
        axis: Dimension of the channels, counted from the front; None where they were not observed.
        channel_minimum: float32 [groups, channels]; no channels where `axis` is None.
        channel_maximum: Likewise.
        channel_sum: float64 [groups, channels].
    """

    count: torch.Tensor
    minimum: torch.Tensor
    maximum: torch.Tensor
    exponent: torch.Tensor
    histogram: torch.Tensor = field(repr=False)
    axis: int | None
    channel_minimum: torch.Tensor = field(repr=False)
    channel_maximum: torch.Tensor = field(repr=False)
    channel_sum: torch.Tensor = field(repr=False)

    @property
    def groups(self) -> int:
        """Number of groups of timesteps."""
        return len(self.count)

    @property
    def channels(self) -> int:
        """Number of channels; 0 where they were not observed."""
        return int(self.channel_sum.shape[1])

    @property
    def channel_absmax(self) -> torch.Tensor:
        """Largest magnitude of each channel over all groups, float32 [channels]."""
        seen = self.count > 0
        low, high = self.channel_minimum[seen], self.channel_maximum[seen]
        return torch.maximum(-low, high).amax(dim=0)

    @property
    def channel_mean(self) -> torch.Tensor:
        """Mean of each channel over all groups, float64 [channels]."""
        total = self.channel_sum.sum(dim=0)
        return total * (self.channels / int(self.count.sum())) if self.channels else total

    def select(self, groups: Sequence[int] | None) -> TensorStatistics:
        """The statistics of these groups alone; of all where None.

        Raises:
            UsageError: There is no such group, or no group is given.
            InvalidInput: The groups hold no values.
        """
        chosen = list(range(self.groups)) if groups is None else list(groups)
        if not chosen or not all(0 <= group < self.groups for group in chosen):
            raise UsageError(f"timestep groups {chosen}: expected some of 0 to {self.groups - 1}")
        if not bool(self.count[chosen].any()):
            raise InvalidInput(
                f"timestep groups {chosen}: calibration recorded no values, expected some",
                hint="calibrate with the steps and timestep groups of the plan",
            )
        tensors = {name: getattr(self, name)[chosen] for name in _TENSORS}
        return TensorStatistics(axis=self.axis, **tensors)

    def range(
        self,
        observer: Observer,
        *,
        percentile: float | None = None,
        bits: int = 8,
        symmetric: bool = False,
        groups: Sequence[int] | None = None,
    ) -> tuple[float, float]:
        """The range that a quantizer of this activation should cover.

        Args:
            observer: `minmax` for the extremes, `percentile` for a share of the values, `mse` for the range
                whose quantization loses least.
            percentile: Share of the values that lie inside, such as 0.9999; for `percentile` alone.
            bits: Of the quantizer; for `mse` alone.
            symmetric: Whether its zero point is fixed, so that the range serves the larger magnitude.
            groups: Groups of timesteps; None for all.

        Returns:
            Low and high, within the extremes. They need not hold zero.

        Raises:
            UsageError: An argument is missing or outside of its bounds.
            InvalidInput: The groups hold no values.
        """
        chosen = self.select(groups)
        exponent, counts = chosen.merged_histogram()
        seen = chosen.count > 0
        low, high = float(chosen.minimum[seen].min()), float(chosen.maximum[seen].max())
        return range_of(
            observer,
            counts.numpy(),
            exponent,
            (low, high),
            percentile=percentile,
            bits=bits,
            symmetric=symmetric,
        )

    def merged_histogram(self) -> tuple[int, torch.Tensor]:
        """One histogram of all groups: its exponent, and int64 [2048]."""
        exponents = [int(exponent) for exponent in self.exponent]
        widest = max(exponents)
        parts = [
            widened(counts, widest - exponent)
            for counts, exponent in zip(self.histogram, exponents, strict=True)
        ]
        return widest, torch.stack(parts).sum(dim=0)


_TENSORS: Final = (
    "count",
    "minimum",
    "maximum",
    "exponent",
    "histogram",
    "channel_minimum",
    "channel_maximum",
    "channel_sum",
)


class StreamingStatistics:
    """Statistics that take an activation portion by portion.

    Args:
        groups: Number of groups of timesteps.
        axis: Dimension of the channels; negative counts from the end. None observes no channels.
    """

    def __init__(self, groups: int, axis: int | None = None) -> None:
        self._axis = axis
        self._groups: list[_Group | None] = [None] * groups

    def add(self, values: torch.Tensor, group: int = 0) -> bool:
        """Takes the next portion.

        Args:
            values: Floats of any shape; the number of channels never changes.
            group: The group of timesteps that it belongs to.

        Returns:
            False, and nothing is taken, where a value is NaN or infinite.
        """
        values = values.detach().to(torch.float32)
        if values.numel() == 0:
            return True
        if self._axis is not None and self._axis < 0:
            self._axis += values.dim()
        low, high = (float(bound) for bound in torch.aminmax(values))  # NaN comes through
        if not (abs(low) < float("inf") and abs(high) < float("inf")):
            return False
        found = self._groups[group]
        if found is None:
            channels = 0 if self._axis is None else values.shape[self._axis]
            found = self._groups[group] = _Group(channels)
        for part in _portions(values, self._axis):
            found.add(part, low, high, self._axis)
        return True

    @property
    def size_bytes(self) -> int:
        """Memory of the statistics."""
        kept = [group for group in self._groups if group is not None]
        return sum(tensor.nbytes for group in kept for tensor in group.tensors())

    def finish(self) -> TensorStatistics:
        """What was taken so far."""
        channels = max((len(group.sum) for group in self._groups if group), default=0)
        groups = [group or _Group(channels) for group in self._groups]
        return TensorStatistics(
            count=torch.tensor([group.count for group in groups]),
            minimum=torch.tensor([group.low for group in groups], dtype=torch.float32),
            maximum=torch.tensor([group.high for group in groups], dtype=torch.float32),
            exponent=torch.tensor([group.exponent for group in groups]),
            histogram=torch.stack([group.counts for group in groups]),
            axis=self._axis if channels else None,
            channel_minimum=torch.stack([group.minimum for group in groups]),
            channel_maximum=torch.stack([group.maximum for group in groups]),
            channel_sum=torch.stack([group.sum for group in groups]),
        )


def _portions(values: torch.Tensor, axis: int | None) -> Sequence[torch.Tensor]:
    """Parts along the longest dimension that is not the channels': copies of one take little memory."""
    pieces = -(-values.numel() // _PORTION)
    others = [dim for dim in range(values.dim()) if dim != axis]
    if pieces == 1 or not others:
        return (values,)
    longest = max(others, key=lambda dim: values.shape[dim])
    return torch.split(values, -(-values.shape[longest] // pieces), dim=longest)


class _Group:
    """The statistics of one group of timesteps."""

    def __init__(self, channels: int) -> None:
        self.count = 0
        self.low = self.high = 0.0
        self.exponent = EXPONENTS[0]
        self.counts = torch.zeros(BINS, dtype=torch.int64)
        self.minimum = torch.zeros(channels)
        self.maximum = torch.zeros(channels)
        self.sum = torch.zeros(channels, dtype=torch.float64)

    def tensors(self) -> tuple[torch.Tensor, ...]:
        return self.counts, self.minimum, self.maximum, self.sum

    def add(self, values: torch.Tensor, low: float, high: float, axis: int | None) -> None:
        exponent = max(self.exponent, exponent_for(low, high))
        self.counts = widened(self.counts, exponent - self.exponent)
        self.exponent = exponent
        self.counts += counts_of(values, exponent)
        first = self.count == 0
        self.low = low if first else min(self.low, low)
        self.high = high if first else max(self.high, high)
        self.count += values.numel()
        if axis is not None:
            self._add_channels(values, axis, first=first)

    def _add_channels(self, values: torch.Tensor, axis: int, *, first: bool) -> None:
        others = tuple(dim for dim in range(values.dim()) if dim != axis)
        low = values.amin(others) if others else values
        high = values.amax(others) if others else values
        total = values.sum(others, dtype=torch.float64) if others else values.to(torch.float64)
        self.minimum = low.clone() if first else torch.minimum(self.minimum, low)
        self.maximum = high.clone() if first else torch.maximum(self.maximum, high)
        self.sum += total
