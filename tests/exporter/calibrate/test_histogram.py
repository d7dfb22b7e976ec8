"""Histograms place values exactly and widen without counting anew."""

from __future__ import annotations

import pytest
import torch

from qdx.exporter.calibrate.histogram import BINS, bin_width, counts_of, exponent_for, widened
from tests.support.taking import values_of


@pytest.mark.parametrize("doublings", [0, 1, 2, 3, 9, 10, 11, 40])
def test_doubling_a_histogram_equals_counting_in_the_wide_range(doublings):
    values = values_of().clamp(-7.9, 7.9)
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
def test_the_range_is_the_least_that_holds_thevalues_of(low, high, exponent):
    assert exponent_for(low, high) == exponent
    assert -(2.0**exponent) <= low
    assert high < 2.0**exponent
