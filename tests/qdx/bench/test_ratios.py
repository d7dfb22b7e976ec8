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


def test_what_differs_from_opening_to_opening_widens_the_interval():
    source = np.random.default_rng(3)
    inside = {1: 0, 6: 0}
    for _ in range(200):
        opened = np.repeat(source.lognormal(0, 0.2, 6), 10)
        ones, others = source.lognormal(0, 0.02, (2, 60))
        for openings in inside:
            found = ratio_of(0.8 * opened * ones, others, openings)
            inside[openings] += found.low <= 0.8 <= found.high

    assert inside[6] >= 170
    assert inside[1] <= 100


def test_one_opening_is_the_bootstrap_over_rounds_alone():
    times = np.random.default_rng(4).lognormal(0, 0.1, (2, 9))
    drawn = np.random.default_rng(5).choice(times[0] / times[1], (10_000, 9))
    low, high = np.quantile(np.median(drawn, axis=1), (0.025, 0.975))

    assert ratio_of(*times).low == pytest.approx(low, rel=0.02)
    assert ratio_of(*times).high == pytest.approx(high, rel=0.02)
