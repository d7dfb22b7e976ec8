from __future__ import annotations

import math

import numpy as np
import pytest

from qdx.verification.measure.intervals import bootstrap


def test_the_interval_holds_the_mean_and_shrinks_with_more_runs():
    values = np.random.default_rng(3).normal(30, 2, 400)
    few, many = bootstrap(values[:10]), bootstrap(values)

    assert few.low < few.mean < few.high
    assert many.high - many.low < few.high - few.low
    assert many.low < 30 < many.high


def test_the_interval_is_that_of_the_normal_approximation():
    values = np.random.default_rng(4).normal(0, 1, 1000)
    found = bootstrap(values)
    half = 1.96 * values.std() / math.sqrt(1000)

    assert found.high - found.low == pytest.approx(2 * half, rel=0.1)


def test_the_same_values_give_the_same_interval():
    assert bootstrap([1.0, 2.0, 5.0]) == bootstrap([1.0, 2.0, 5.0])


def test_one_run_has_no_interval():
    found = bootstrap([7.0])

    assert (found.mean, found.count) == (7.0, 1)
    assert math.isnan(found.low)
    assert found.to_json() == {"mean": 7.0, "low": None, "high": None, "count": 1}


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [1.0, math.inf]])
def test_a_missing_value_makes_everything_nan(values):
    assert math.isnan(bootstrap(values).mean)
