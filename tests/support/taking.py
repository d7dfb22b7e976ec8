"""Statistics of seeded values, and whether two are the same."""

from __future__ import annotations

import torch

from qdx.exporter.calibrate.streaming import StreamingStatistics


def values_of(seed=0, shape=(4, 3, 5, 7), scale=2.0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def taken(portions, *, groups=1, axis=1):
    statistics = StreamingStatistics(groups, axis)
    for group, values in portions:
        assert statistics.add(values, group)
    return statistics.finish()


def same_statistics(one, other):
    names = ("count", "minimum", "maximum", "exponent", "histogram")
    channels = ("channel_minimum", "channel_maximum")
    return all(
        torch.equal(getattr(one, n).to(getattr(other, n).dtype), getattr(other, n))
        for n in (*names, *channels)
    )
