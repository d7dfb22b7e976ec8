"""Statistics of groups of timesteps and of samples merge into those of all."""

from __future__ import annotations

import functools

import pytest
import torch

from qdx.exporter.calibrate.statistics import merged
from qdx.exporter.errors import InvalidInput, UsageError
from tests.support.taking import same_statistics, taken, values_of


def test_groups_are_apart_and_merge_into_the_whole():
    parts = [values_of(seed, scale=3.0**seed) for seed in range(4)]
    apart = taken(list(enumerate(parts)), groups=4)
    whole = taken([(0, part) for part in parts])
    exponent, histogram = apart.merged_histogram()
    assert exponent == int(whole.exponent)
    assert torch.equal(histogram, whole.histogram[0])
    assert torch.equal(apart.channel_absmax, whole.channel_absmax)
    assert same_statistics(apart.select([2]), taken([(0, parts[2])]))
    assert apart.range("minmax", groups=[1]) == (parts[1].min(), parts[1].max())
    torch.testing.assert_close(
        apart.select([0, 1]).channel_mean, torch.cat(parts[:2]).double().mean((0, 2, 3))
    )


def test_samples_merge_in_fixed_order_into_the_statistics_of_all():
    parts = [values_of(seed, scale=3.0 ** (seed - 3)) for seed in range(6)]
    whole = taken([(seed % 2, part) for seed, part in enumerate(parts)], groups=3)
    apart = [taken([(seed % 2, part)], groups=3) for seed, part in enumerate(parts)]
    joined = functools.reduce(merged, apart)
    assert same_statistics(joined, whole)
    torch.testing.assert_close(joined.channel_mean, whole.channel_mean, rtol=1e-12, atol=1e-12)
    with pytest.raises(
        InvalidInput, match="statistics of 1 groups and 3 channels, expected 3 and 3"
    ):
        merged(whole, taken([(0, parts[0])]))


def test_groups_without_values_are_refused():
    statistics = taken([(0, values_of())], groups=2)
    assert statistics.range("minmax") == statistics.range("minmax", groups=[0])
    with pytest.raises(InvalidInput, match=r"timestep groups \[1\]: calibration recorded no"):
        statistics.range("minmax", groups=[1])
    with pytest.raises(UsageError, match="expected some of 0 to 1"):
        statistics.range("minmax", groups=[2])
