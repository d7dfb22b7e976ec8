"""Statistics of activations on a GPU: reduced there during a run, and read in one transfer at its end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from qdx.exporter.calibrate.portion import Portion
    from qdx.exporter.calibrate.streaming import StreamingStatistics

__all__ = ["DeferredStatistics"]


class DeferredStatistics:
    """What a run of a graph shows of its activations.

    Between the run's beginning and its end this holds the sampled values of every activation and the extremes and
    sums of its channels, a few hundred kilobytes each.

    Args:
        streams: The statistics of each activation, on the device.
    """

    def __init__(self, streams: Sequence[StreamingStatistics]) -> None:
        self._streams = streams
        self._taken: list[tuple[int, int, Portion]] = []

    @contextmanager
    def run(self) -> Iterator[None]:
        """One run of the graph; what it has shown and nobody has settled is dropped at its end."""
        try:
            yield
        finally:
            self._taken.clear()

    def add(self, index: int, values: torch.Tensor, group: int) -> None:
        """Reduces the next values of an activation; no number of them is read.

        Args:
            index: Of the activation.
            values: Floats on the device.
            group: The group of timesteps that they belong to.
        """
        portion = self._streams[index].portion(values, outlasts=True)
        if portion is not None:
            self._taken.append((index, group, portion))

    def extremes(self) -> torch.Tensor:
        """The least and the greatest value of all that was taken, float32 [portions, 2] on the device."""
        return torch.stack([torch.stack(portion.extremes) for _, _, portion in self._taken])

    def settle(self) -> int | None:
        """Adds all to the statistics.

        Returns:
            The first activation that holds NaN or infinity; None where all values are finite.
        """
        if not self._taken:
            return None
        for (index, group, portion), (low, high) in zip(
            self._taken, self.extremes().tolist(), strict=True
        ):
            if not self._streams[index].take(portion, low, high, group):
                return index
        return None
