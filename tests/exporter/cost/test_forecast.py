"""Time that is left, by what is measured."""

from __future__ import annotations

import math

import pytest

from qdx.exporter.cost.forecast import Estimate, Forecast
from qdx.exporter.errors import InternalError

CALLS = {"observed call": 80, "plain call": 320}


def test_nothing_is_known_before_the_first_unit():
    estimate = Forecast(CALLS, memory_bytes=2_100_000_000).now()

    assert estimate == Estimate(None, 2_100_000_000, 0, 400)
    assert estimate.words() == "a time not known yet, 2.1 GB of memory"


def test_the_first_unit_tells_of_all_by_their_relations():
    forecast = Forecast(CALLS, relative={"observed call": 2.0})
    forecast.measured("observed call", 6.0)

    assert forecast.now() == Estimate(79 * 6.0 + 320 * 3.0, None, 1, 400)
    assert forecast.now().words() == "about 24 min"


def test_a_kind_that_is_measured_speaks_for_itself():
    forecast = Forecast(CALLS, relative={"observed call": 2.0})
    forecast.measured("observed call", 6.0)
    forecast.measured("plain call", 5.0)

    assert forecast.now().seconds == 79 * 6.0 + 319 * 5.0


def test_workers_share_the_rest():
    forecast = Forecast({"call": 9}, workers=4)
    forecast.measured("call", 10.0)

    assert forecast.now().seconds == 20.0


def test_early_units_count_alike_and_a_new_pace_is_followed():
    forecast = Forecast({"call": 100})
    for seconds in (1.0, 3.0):
        forecast.measured("call", seconds)
    assert forecast.now().seconds == pytest.approx(98 * 2.0)

    for _ in range(20):
        forecast.measured("call", 10.0)
    assert forecast.now().seconds == pytest.approx(78 * 10.0, rel=0.02)


def test_what_a_checkpoint_holds_is_done_and_tells_no_pace():
    forecast = Forecast({"call": 10})
    forecast.done_before("call", 6)
    assert forecast.now() == Estimate(None, None, 6, 10)

    forecast.measured("call", 2.0)
    assert forecast.now() == Estimate(6.0, None, 7, 10)


def test_nothing_is_left_at_the_end_and_beyond_it():
    forecast = Forecast({"call": 1, "other": 0})
    for _ in range(2):
        forecast.measured("call", 2.0)

    assert forecast.now().seconds == 0


@pytest.mark.parametrize(
    ("kind", "seconds"), [("cal", 1.0), ("call", -1.0), ("call", math.nan), ("call", math.inf)]
)
def test_what_cannot_be_is_a_defect(kind, seconds):
    with pytest.raises(InternalError, match="a unit"):
        Forecast({"call": 1}).measured(kind, seconds)


@pytest.mark.parametrize("options", [{"workers": 0}, {"relative": {"cal": 2.0}}])
def test_an_impossible_forecast_is_a_defect(options):
    with pytest.raises(InternalError, match="no forecast"):
        Forecast({"call": 1}, **options)
