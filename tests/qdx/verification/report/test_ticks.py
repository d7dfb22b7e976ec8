from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qdx.verification.report.ticks import round_step, round_ticks, whole_ticks

VALUES = st.floats(-1e6, 1e6, allow_nan=False).filter(lambda x: x == 0 or abs(x) > 1e-3)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (25.8, 43.2, (25, 30, 35, 40, 45)),
        (0.9, 1.1, (0.9, 0.95, 1.0, 1.05, 1.1)),
        (0.0, 200.0, (0, 50, 100, 150, 200)),
        (7.0, 7.0, (7.0, 7.2)),
    ],
)
def test_ticks_are_round(low, high, ticks):
    assert round_ticks(low, high) == pytest.approx(ticks)


@given(VALUES, VALUES)
def test_ticks_hold_all_values_and_are_few_and_evenly_spaced(one, other):
    low, high = sorted((one, other))
    ticks = round_ticks(low, high)
    span = ticks[-1] - ticks[0]

    assert ticks[0] <= low + 1e-6 * span
    assert ticks[-1] >= high - 1e-6 * span
    assert 2 <= len(ticks) <= 7
    for place, tick in enumerate(ticks):
        assert tick == pytest.approx(ticks[0] + place * span / (len(ticks) - 1), abs=1e-6 * span)


@given(st.floats(1e-6, 1e9))
def test_a_step_is_one_two_or_five_times_a_power_of_ten(least):
    step = round_step(least)
    mantissa = step / 10 ** math.floor(math.log10(step) + 1e-9)

    assert step >= least * (1 - 1e-6)
    assert any(mantissa == pytest.approx(one) for one in (1, 2, 5, 10))


@given(st.integers(0, 50), st.integers(0, 2000))
def test_whole_ticks_are_calls_that_there_are(first, count):
    ticks = whole_ticks(first, first + count)

    assert ticks
    assert all(first <= tick <= first + count for tick in ticks)
    assert len(ticks) <= 7
