"""Ratios of paired times."""

from __future__ import annotations

import numpy as np
import pytest

from qdx.bench.ratios import ratio_of


def test_a_load_that_meets_both_sides_of_a_round_leaves_the_ratio():
    load = np.random.default_rng(0).uniform(1, 10, 40)
    found = ratio_of(2 * load, load)

    assert (found.median, found.low, found.high) == (2, 2, 2)


def test_the_median_takes_no_notice_of_one_bad_round():
    found = ratio_of([1.0] * 10 + [1000.0], [2.0] * 11)

    assert (found.median, found.low, found.high) == (0.5, 0.5, 0.5)


def test_the_interval_covers_the_true_ratio_about_19_times_of_20():
    source = np.random.default_rng(1)
    inside = 0
    for _ in range(200):
        ones, others = source.lognormal(0, 0.1, (2, 25))
        found = ratio_of(0.8 * ones, others)
        inside += found.low <= 0.8 <= found.high

    assert 180 <= inside <= 200


def test_the_same_times_have_the_same_interval():
    times = np.random.default_rng(2).lognormal(0, 0.1, (2, 9))

    assert ratio_of(*times) == ratio_of(*times)


def test_a_single_round_has_an_interval_of_one_point():
    assert ratio_of([3.0], [2.0]).low == pytest.approx(1.5)
