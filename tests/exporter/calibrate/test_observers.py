"""Observers choose ranges."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qdx.exporter.calibrate.histogram import bin_width
from qdx.exporter.calibrate.streaming import StreamingStatistics
from qdx.exporter.errors import UsageError


def _statistics(values):
    streaming = StreamingStatistics(1)
    assert streaming.add(torch.as_tensor(values, dtype=torch.float32))
    return streaming.finish()


def _normal(count=20_000, seed=0):
    return np.random.default_rng(seed).normal(0.5, 1.0, count).astype(np.float32)


def _squared_error(values, low, high, bits, *, symmetric):
    if symmetric:
        half = 2 ** (bits - 1) - 1
        scale, zero, bottom, top = max(-low, high) / half, 0, -half - 1, half
    else:
        low, high = min(low, 0), max(high, 0)
        scale = (high - low) / (2**bits - 1)
        zero, bottom, top = round(-low / scale), 0, 2**bits - 1
    steps = np.clip(np.rint(values / scale) + zero, bottom, top) - zero
    return float(((steps * scale - values.astype(np.float64)) ** 2).mean())


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99, 0.999])
def test_percentile_agrees_with_numpy_within_a_bin(share):
    values = _normal()
    statistics = _statistics(values)
    width = bin_width(int(statistics.exponent))
    low, high = statistics.range("percentile", percentile=share)
    tail = (1 - share) / 2
    expected = np.quantile(values, [tail, 1 - tail])
    # Where values are sparse, numpy interpolates across the gap between two of them.
    gap = np.diff(np.sort(values))[[20, -20]].max()
    np.testing.assert_allclose([low, high], expected, atol=width + gap, rtol=0)
    inside = ((values >= low) & (values <= high)).mean()
    assert inside == pytest.approx(share, abs=0.002)


def test_percentile_of_magnitudes_for_symmetric_quantizers():
    values = _normal()
    statistics = _statistics(values)
    low, high = statistics.range("percentile", percentile=0.99, symmetric=True)
    expected = np.quantile(np.abs(values), 0.99)
    assert low == -high
    assert high == pytest.approx(expected, abs=bin_width(int(statistics.exponent)))


def test_percentile_of_all_values_is_minmax():
    statistics = _statistics(_normal())
    assert statistics.range("percentile", percentile=1.0) == statistics.range("minmax")


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [4, 6, 8])
def test_mse_beats_minmax_on_heavy_tails(bits, symmetric):
    values = np.random.default_rng(1).standard_t(2.5, 50_000).astype(np.float32)
    statistics = _statistics(values)
    found = statistics.range("mse", bits=bits, symmetric=symmetric)
    whole = statistics.range("minmax")
    error = _squared_error(values, *found, bits, symmetric=symmetric)
    assert error < 0.9 * _squared_error(values, *whole, bits, symmetric=symmetric)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [4, 8])
def test_mse_is_near_the_best_clipping_of_the_values_themselves(bits, symmetric):
    values = np.random.default_rng(2).laplace(0, 1, 20_000).astype(np.float32)
    statistics = _statistics(values)
    low, high = statistics.range("minmax")
    found = statistics.range("mse", bits=bits, symmetric=symmetric)
    ratios = np.linspace(0.05, 1, 96)
    tried = [_squared_error(values, r * low, r * high, bits, symmetric=symmetric) for r in ratios]
    assert _squared_error(values, *found, bits, symmetric=symmetric) <= 1.03 * min(tried)


def test_mse_clips_each_side_on_its_own():
    values = np.concatenate([np.random.default_rng(3).uniform(-1, 1, 50_000), [60.0]])
    low, high = _statistics(values).range("mse", bits=4)
    assert low == pytest.approx(-1, abs=0.15)
    assert high < 10


def test_mse_keeps_the_whole_of_an_even_distribution():
    values = np.random.default_rng(4).uniform(0, 6, 50_000)
    low, high = _statistics(values).range("mse", bits=8)
    assert low >= 0
    assert high == pytest.approx(6, rel=0.02)


@pytest.mark.parametrize("observer", ["minmax", "percentile", "mse"])
@pytest.mark.parametrize("value", [0.0, 2.5, -2.5])
def test_a_constant_is_its_own_range(observer, value):
    statistics = _statistics(np.full(10, value))
    low, high = statistics.range(observer, percentile=0.999, bits=8)
    assert low <= value <= high or (low, high) == (value, value)
    assert (low, high) == (value, value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"observer": "percentile"}, "percentile is None"),
        ({"observer": "percentile", "percentile": 99.9}, "percentile is 99.9, expected 0.5 to 1"),
        ({"observer": "mse", "bits": 1}, "bits are 1"),
        ({"observer": "entropy"}, "observer is 'entropy', expected minmax, percentile or mse"),
    ],
)
def test_wrong_arguments_are_refused(arguments, words):
    with pytest.raises(UsageError, match=words):
        _statistics(_normal(10)).range(**arguments)
