"""Streaming statistics equal those of all values at once."""

from __future__ import annotations

import math

import pytest
import torch

from qdx.exporter.calibrate.streaming import (
    SAMPLED_VALUES,
    StreamingStatistics,
    sampling_stride,
)
from tests.support.taking import same_statistics, taken, values_of


def test_portions_give_the_statistics_of_allvalues_of():
    values = torch.cat([values_of(seed, scale=10.0**seed) for seed in range(3)])
    whole = taken([(0, values)])
    portions = taken([(0, part) for part in values.split(5)])
    assert same_statistics(whole, portions)
    assert int(whole.count) == values.numel() == int(whole.histogram.sum())
    assert (float(whole.minimum), float(whole.maximum)) == (values.min(), values.max())
    torch.testing.assert_close(
        whole.channel_mean, values.double().mean((0, 2, 3)), rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(portions.channel_mean, whole.channel_mean, rtol=1e-6, atol=1e-7)
    assert torch.equal(whole.channel_absmax, values.abs().amax((0, 2, 3)))


def test_the_order_of_portions_does_not_matter():
    portions = [(0, values_of(seed, scale=4.0**seed)) for seed in range(5)]
    assert same_statistics(taken(portions), taken(portions[::-1]))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_nottaken(value):
    statistics = StreamingStatistics(1, 0)
    statistics.add(torch.ones(3))
    bad = torch.ones(3)
    bad[1] = value
    assert not statistics.add(bad)
    assert int(statistics.finish().count) == 3


def test_memory_does_not_grow_with_samples():
    statistics = StreamingStatistics(2, 1)
    statistics.add(values_of(), 0)
    before = statistics.size_bytes
    for seed in range(50):
        statistics.add(values_of(seed, scale=seed + 1.0), 0)
    assert statistics.size_bytes == before


def test_a_fixed_share_of_large_activations_is_counted_and_extremes_are_exact():
    values = values_of(shape=(8, 16, 40, 77), scale=1.0)
    values[3, 5, 7, 11], values[1, 2, 3, 5] = 40.0, -50.0
    whole = taken([(0, values)])
    counted = int(whole.histogram.sum())
    assert counted < 4 * SAMPLED_VALUES < values.numel() == int(whole.count)
    assert (float(whole.minimum), float(whole.maximum)) == (-50.0, 40.0)
    assert torch.equal(whole.channel_absmax, values.abs().amax((0, 2, 3)))
    torch.testing.assert_close(
        whole.channel_mean, values.double().mean((0, 2, 3)), rtol=1e-5, atol=1e-7
    )
    low, high = whole.range("percentile", percentile=0.99)
    assert (low, high) == pytest.approx((-2.576, 2.576), abs=0.05)


@pytest.mark.parametrize(
    "shape",
    [(2, 8, 4096, 77), (2, 320, 64, 64), (2, 4096, 2560), (1, 3, 999), (3, 2**16), (2, 2**16)],
)
def test_sampled_values_come_from_every_place_of_every_dimension(shape):
    stride = sampling_stride(math.prod(shape))
    assert all(math.gcd(stride, size) == 1 for size in shape)
    wanted = min(math.prod(shape), SAMPLED_VALUES)
    assert wanted / 4 < math.prod(shape) / stride < 4 * wanted


@pytest.mark.parametrize("kept", [False, True])
def test_parts_of_a_call_are_sampled_as_the_whole(kept):
    """Blocks of attention scores, each of some queries; a walk that began anew with each would see the first keys only."""
    keys = torch.arange(1024.0).expand(512, -1).contiguous()
    whole = StreamingStatistics(1, elements=keys.numel())
    whole.add(keys)
    in_parts = StreamingStatistics(1, elements=keys.numel())
    for part in keys.split(1):
        in_parts.add(part)
        if kept:
            found, in_parts = in_parts.finish(), StreamingStatistics(1, elements=keys.numel())
            in_parts.restore(found)
    assert torch.equal(in_parts.finish().histogram, whole.finish().histogram)


def test_parts_that_are_shorter_than_a_stride_are_sampled_now_and_then():
    values = torch.randn(2**19, generator=torch.Generator().manual_seed(5))
    statistics = StreamingStatistics(1, elements=values.numel())
    for part in values[:340].split(5):
        statistics.add(part)
    assert int(statistics.finish().histogram.sum()) == 340 // sampling_stride(values.numel())


def test_statistics_go_on_from_where_they_were_kept():
    parts = [values_of(seed, scale=2.0**seed) for seed in range(4)]
    whole = taken([(seed % 3, part) for seed, part in enumerate(parts)], groups=4)
    first = taken([(seed % 3, part) for seed, part in enumerate(parts[:2])], groups=4)
    statistics = StreamingStatistics(4, 1)
    statistics.restore(first)
    for seed, part in enumerate(parts[2:], 2):
        statistics.add(part, seed % 3)
    found = statistics.finish()
    assert same_statistics(found, whole)
    assert torch.equal(found.channel_sum, whole.channel_sum)


def test_extreme_magnitudes_are_counted():
    values = torch.tensor([-3e38, 3e38, 1e-30, 0.0, -1e-30])
    found = taken([(0, value[None]) for value in values], axis=None)
    whole = taken([(0, values)], axis=None)
    assert torch.equal(found.histogram, whole.histogram)
    assert found.range("minmax") == (float(values[0]), float(values[1]))
    assert found.channels == 0


def test_channels_lie_along_a_negative_axis_too():
    values = values_of(shape=(2, 6, 3))
    assert torch.equal(taken([(0, values)], axis=-1).channel_absmax, values.abs().amax((0, 1)))
    assert taken([(0, values)], axis=-1).axis == 2


def test_half_precision_is_observed_as_float32():
    values = values_of().half()
    assert same_statistics(taken([(0, values)]), taken([(0, values.float())]))
