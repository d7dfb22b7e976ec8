"""What is kept of an activation: its exact extremes, a histogram, and extremes and means of its channels.

Everything is kept for each group of timesteps apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import torch

from qdx.exporter.calibrate.histogram import widened
from qdx.exporter.calibrate.observers import Observer, range_of
from qdx.exporter.errors import InvalidInput, UsageError

__all__ = ["TensorStatistics", "merged"]


@dataclass(frozen=True)
class TensorStatistics:
    """Statistics of one activation.

    Attributes:
        count: Number of values seen, int64 [groups].
        minimum: float32 [groups]; 0 for a group without values.
        maximum: Likewise.
        exponent: k of each histogram's range [-2^k, 2^k), int64 [groups].
        histogram: Numbers of sampled values in equal bins of that range, [groups, 2048]: int32 as one sample's calls
            are counted, int64 for all else. The same share of the values is sampled in all groups.
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


def merged(one: TensorStatistics, other: TensorStatistics) -> TensorStatistics:
    """The statistics of two sets of calls of the same activation, group by group.

    Sums of channels are rounded in the order of merging; all else is exact.

    Raises:
        InvalidInput: They have different groups or channels.
    """
    if one.groups != other.groups or one.channels != other.channels:
        raise InvalidInput(
            f"statistics of {other.groups} groups and {other.channels} channels, "
            f"expected {one.groups} and {one.channels}",
            hint="calibrate again",
        )
    exponent = torch.maximum(one.exponent, other.exponent)
    return TensorStatistics(
        count=one.count + other.count,
        minimum=_merged_extremes(one.minimum, other.minimum, one, other, torch.minimum),
        maximum=_merged_extremes(one.maximum, other.maximum, one, other, torch.maximum),
        exponent=exponent,
        histogram=_widened_to(exponent, one) + _widened_to(exponent, other),
        axis=one.axis if one.channels else None,
        channel_minimum=_merged_extremes(
            one.channel_minimum, other.channel_minimum, one, other, torch.minimum
        ),
        channel_maximum=_merged_extremes(
            one.channel_maximum, other.channel_maximum, one, other, torch.maximum
        ),
        channel_sum=one.channel_sum + other.channel_sum,
    )


def _widened_to(exponent: torch.Tensor, part: TensorStatistics) -> torch.Tensor:
    """The histograms of a part, int64 [groups, 2048], each with the range that an exponent tells."""
    counts = part.histogram.to(torch.int64)
    if torch.equal(part.exponent, exponent):
        return counts
    doublings = (exponent - part.exponent).tolist()
    return torch.stack([widened(*pair) for pair in zip(counts, doublings, strict=True)])


def _merged_extremes(
    left: torch.Tensor,
    right: torch.Tensor,
    one: TensorStatistics,
    other: TensorStatistics,
    better: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """The better of both where both have values, else that of the one that has."""
    shape = (-1, *[1] * (left.dim() - 1))
    seen, also = (one.count > 0).reshape(shape), (other.count > 0).reshape(shape)
    return torch.where(seen & also, better(left, right), torch.where(seen, left, right))
