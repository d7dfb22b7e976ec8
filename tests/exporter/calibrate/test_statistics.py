"""Streaming statistics equal those of all values at once."""

from __future__ import annotations

import functools
import math

import pytest
import torch

from qdx.exporter.calibrate.histogram import BINS, bin_width, counts_of, exponent_for, widened
from qdx.exporter.calibrate.portion import _in_order_of_memory
from qdx.exporter.calibrate.statistics import (
    SAMPLED_VALUES,
    StreamingStatistics,
    merged,
    sampling_stride,
)
from qdx.exporter.errors import InvalidInput, UsageError


def _values(seed=0, shape=(4, 3, 5, 7), scale=2.0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def _taken(portions, *, groups=1, axis=1):
    statistics = StreamingStatistics(groups, axis)
    for group, values in portions:
        assert statistics.add(values, group)
    return statistics.finish()


def _same(one, other):
    names = ("count", "minimum", "maximum", "exponent", "histogram")
    channels = ("channel_minimum", "channel_maximum")
    return all(
        torch.equal(getattr(one, n).to(getattr(other, n).dtype), getattr(other, n))
        for n in (*names, *channels)
    )


def test_portions_give_the_statistics_of_all_values():
    values = torch.cat([_values(seed, scale=10.0**seed) for seed in range(3)])
    whole = _taken([(0, values)])
    portions = _taken([(0, part) for part in values.split(5)])
    assert _same(whole, portions)
    assert int(whole.count) == values.numel() == int(whole.histogram.sum())
    assert (float(whole.minimum), float(whole.maximum)) == (values.min(), values.max())
    torch.testing.assert_close(
        whole.channel_mean, values.double().mean((0, 2, 3)), rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(portions.channel_mean, whole.channel_mean, rtol=1e-6, atol=1e-7)
    assert torch.equal(whole.channel_absmax, values.abs().amax((0, 2, 3)))


def test_the_order_of_portions_does_not_matter():
    portions = [(0, _values(seed, scale=4.0**seed)) for seed in range(5)]
    assert _same(_taken(portions), _taken(portions[::-1]))


def test_groups_are_apart_and_merge_into_the_whole():
    parts = [_values(seed, scale=3.0**seed) for seed in range(4)]
    apart = _taken(list(enumerate(parts)), groups=4)
    whole = _taken([(0, part) for part in parts])
    exponent, histogram = apart.merged_histogram()
    assert exponent == int(whole.exponent)
    assert torch.equal(histogram, whole.histogram[0])
    assert torch.equal(apart.channel_absmax, whole.channel_absmax)
    assert _same(apart.select([2]), _taken([(0, parts[2])]))
    assert apart.range("minmax", groups=[1]) == (parts[1].min(), parts[1].max())
    torch.testing.assert_close(
        apart.select([0, 1]).channel_mean, torch.cat(parts[:2]).double().mean((0, 2, 3))
    )


@pytest.mark.parametrize("doublings", [0, 1, 2, 3, 9, 10, 11, 40])
def test_doubling_a_histogram_equals_counting_in_the_wide_range(doublings):
    values = _values().clamp(-7.9, 7.9)
    narrow = counts_of(values, 3)
    assert torch.equal(widened(narrow, doublings), counts_of(values, 3 + doublings))


def test_values_on_edges_fall_into_the_bin_that_they_begin():
    width = bin_width(2)
    counts = counts_of(torch.tensor([-4.0, 0.0, width, width * 1.999, -width, 4 - width]), 2)
    filled = {int(i): int(counts[i]) for i in counts.nonzero()}
    half = BINS // 2
    assert filled == {0: 1, half: 1, half + 1: 2, half - 1: 1, BINS - 1: 1}


@pytest.mark.parametrize(
    ("low", "high", "exponent"),
    [(0, 0, -64), (-1, 1, 1), (-1, 0.99, 0), (0, 1, 1), (-4, 0, 2), (-4.1, 0, 3), (0, 3e38, 128)],
)
def test_the_range_is_the_least_that_holds_the_values(low, high, exponent):
    assert exponent_for(low, high) == exponent
    assert -(2.0**exponent) <= low
    assert high < 2.0**exponent


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_not_taken(value):
    statistics = StreamingStatistics(1, 0)
    statistics.add(torch.ones(3))
    bad = torch.ones(3)
    bad[1] = value
    assert not statistics.add(bad)
    assert int(statistics.finish().count) == 3


def test_memory_does_not_grow_with_samples():
    statistics = StreamingStatistics(2, 1)
    statistics.add(_values(), 0)
    before = statistics.size_bytes
    for seed in range(50):
        statistics.add(_values(seed, scale=seed + 1.0), 0)
    assert statistics.size_bytes == before


def test_a_fixed_share_of_large_activations_is_counted_and_extremes_are_exact():
    values = _values(shape=(8, 16, 40, 77), scale=1.0)
    values[3, 5, 7, 11], values[1, 2, 3, 5] = 40.0, -50.0
    whole = _taken([(0, values)])
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


def test_sampling_needs_no_copy_of_what_lies_in_another_order():
    values = _values(shape=(2, 4, 6, 8))
    moved = values.permute(0, 2, 3, 1)
    row = _in_order_of_memory(moved)
    assert row.data_ptr() == values.data_ptr()
    assert torch.equal(row, values.reshape(-1))


def test_samples_merge_in_fixed_order_into_the_statistics_of_all():
    parts = [_values(seed, scale=3.0 ** (seed - 3)) for seed in range(6)]
    whole = _taken([(seed % 2, part) for seed, part in enumerate(parts)], groups=3)
    apart = [_taken([(seed % 2, part)], groups=3) for seed, part in enumerate(parts)]
    joined = functools.reduce(merged, apart)
    assert _same(joined, whole)
    torch.testing.assert_close(joined.channel_mean, whole.channel_mean, rtol=1e-12, atol=1e-12)
    with pytest.raises(
        InvalidInput, match="statistics of 1 groups and 3 channels, expected 3 and 3"
    ):
        merged(whole, _taken([(0, parts[0])]))


def test_statistics_go_on_from_where_they_were_kept():
    parts = [_values(seed, scale=2.0**seed) for seed in range(4)]
    whole = _taken([(seed % 3, part) for seed, part in enumerate(parts)], groups=4)
    first = _taken([(seed % 3, part) for seed, part in enumerate(parts[:2])], groups=4)
    statistics = StreamingStatistics(4, 1)
    statistics.restore(first)
    for seed, part in enumerate(parts[2:], 2):
        statistics.add(part, seed % 3)
    found = statistics.finish()
    assert _same(found, whole)
    assert torch.equal(found.channel_sum, whole.channel_sum)


def test_extreme_magnitudes_are_counted():
    values = torch.tensor([-3e38, 3e38, 1e-30, 0.0, -1e-30])
    taken = _taken([(0, value[None]) for value in values], axis=None)
    whole = _taken([(0, values)], axis=None)
    assert torch.equal(taken.histogram, whole.histogram)
    assert taken.range("minmax") == (float(values[0]), float(values[1]))
    assert taken.channels == 0


def test_channels_lie_along_a_negative_axis_too():
    values = _values(shape=(2, 6, 3))
    assert torch.equal(_taken([(0, values)], axis=-1).channel_absmax, values.abs().amax((0, 1)))
    assert _taken([(0, values)], axis=-1).axis == 2


def test_groups_without_values_are_refused():
    statistics = _taken([(0, _values())], groups=2)
    assert statistics.range("minmax") == statistics.range("minmax", groups=[0])
    with pytest.raises(InvalidInput, match=r"timestep groups \[1\]: calibration recorded no"):
        statistics.range("minmax", groups=[1])
    with pytest.raises(UsageError, match="expected some of 0 to 1"):
        statistics.range("minmax", groups=[2])


def test_half_precision_is_observed_as_float32():
    values = _values().half()
    assert _same(_taken([(0, values)]), _taken([(0, values.float())]))
