"""What every metric has in common, whatever it computes: bad data is NaN, and the worst of several has one meaning."""

from __future__ import annotations

import math

import pytest
import torch

from qdx.exporter.measure.metrics import METRICS, Metric, measure, metrics_of


def made(compute, better="less", **more) -> Metric:
    return Metric("m", label="m", unit="", better=better, compute=compute,
                  levels=frozenset({"component"}), meaning="-", **more)  # fmt: skip


ONE = torch.ones(2, 3)
# It would say that everything is well.
BLIND = made(lambda reference, output: 0.0)
BAD = {
    "a NaN": torch.tensor([[1.0, 1, 1], [1, math.nan, 1]]),
    "an infinity": ONE * math.inf,
    "infinities of both signs": torch.tensor([[1.0, math.inf, 1], [1, -math.inf, 1]]),
    "another shape": torch.ones(3, 2),
    "what could be broadcast": torch.ones(1, 3),
    "nothing": torch.ones(0, 3),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_data_is_nan_also_to_a_metric_that_does_not_look(name):
    assert measure([BLIND], ONE, ONE) == {"m": 0.0}
    assert math.isnan(measure([BLIND], ONE, BAD[name])["m"])
    assert math.isnan(measure([BLIND], BAD[name], ONE)["m"])


def test_a_metric_that_answers_infinity_has_no_value():
    assert math.isnan(measure([made(lambda reference, output: math.inf)], ONE, ONE)["m"])


def test_large_values_whose_sum_runs_over_are_finite_data():
    large = torch.full((4,), 3e38)

    assert measure([BLIND], large, large) == {"m": 0.0}


def test_the_range_is_told_to_the_metrics_that_ask_for_it_alone():
    scaled = made(lambda reference, output, *, peak: peak, scaled=True)

    assert measure([scaled], ONE, ONE, peak=2.0) == {"m": 2.0}


@pytest.mark.parametrize(
    ("better", "worst", "gate"), [("more", 1.0, "m_min"), ("less", 3.0, "m_max")]
)
def test_the_worst_is_the_bad_end(better, worst, gate):
    metric = made(None, better)

    assert metric.worst([2.0, 1.0, 3.0]) == worst
    assert math.isnan(metric.worst([2.0, math.nan]))
    assert math.isnan(metric.worst([]))
    assert metric.gate == gate


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_is_registered_under_its_name_with_a_unit_and_a_meaning(name):
    metric = METRICS[name]

    assert metric.name == name
    assert metric.levels
    assert metric.unit == ("dB" if name.endswith("_db") else "")
    assert all(metric in metrics_of(level) for level in metric.levels)
