"""Plans can bound every registered metric where it is computed, and no other."""

from __future__ import annotations

import pytest

from qdx.exporter.errors import InternalError, InvalidPlan
from qdx.exporter.measure.metrics import METRICS, metrics_of
from qdx.exporter.plan.schema.gates import ComponentGates, LoweringGates, PipelineGates
from tests.support.plans import GATES, plan_of

LEVELS = ("component", "lowering", "pipeline")
FLOATS = {"select": {"component": "*"}, "weights": {"dtype": "float16"}}
ASKED = {**GATES, "lowering": {"sqnr_db_min": 40}}
PAIRS = [(level, metric.name) for level in LEVELS for metric in metrics_of(level)]


def gates(level, **more):
    asked = {**ASKED, level: {**ASKED[level], **more}}
    return plan_of(FLOATS, gates=asked).gates


@pytest.mark.parametrize(("level", "name"), PAIRS)
def test_a_metric_can_be_bounded_where_it_is_computed(level, name):
    metric = METRICS[name]
    bounds = {m.name: bound for m, bound in getattr(gates(level, **{metric.gate: 1}), level).bounds}

    assert bounds[name] == 1


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", METRICS)
def test_a_metric_cannot_be_bounded_elsewhere_nor_on_its_good_side(level, name):
    metric = METRICS[name]
    good_side = f"{name}_{'max' if metric.better == 'more' else 'min'}"
    keys = [good_side] if level in metric.levels else [good_side, metric.gate]
    for key in keys:
        with pytest.raises(InvalidPlan, match=f"unknown key `{key}`"):
            gates(level, **{key: 1})


@pytest.mark.parametrize(("level", "name"), PAIRS)
def test_a_bound_that_nothing_reaches_or_everything_is_refused(level, name):
    least, most = METRICS[name].gate_range
    for bound in (least - 0.5, *([] if most is None else [most + 0.5])):
        with pytest.raises(InvalidPlan, match=r"expected (less|greater) than or equal to"):
            gates(level, **{METRICS[name].gate: bound})


def test_pictures_are_bound_by_both_of_their_measures_whatever_a_plan_says():
    found = plan_of(FLOATS, gates={**GATES, "pipeline": {"psnr_db_min": 30}}).gates.pipeline

    assert [(metric.name, bound) for metric, bound in found.bounds] == [
        ("psnr_db", 30),
        ("ssim", 0.7),
    ]


def test_a_plan_keeps_its_bounds_through_a_manifest():
    found = gates("component", cosine_min=0.5).component

    assert found.model_dump() == {"sqnr_db_min": 50, "cosine_min": 0.5}
    assert [metric.name for metric, _ in found.bounds] == ["sqnr_db", "cosine"]


def test_a_bound_whose_metric_is_gone_is_no_gate_that_nobody_tests(monkeypatch):
    found = gates("component", cosine_min=0.5).component
    monkeypatch.delitem(METRICS, "cosine")

    with pytest.raises(InternalError, match="cosine_min"):
        _ = found.bounds


@pytest.mark.parametrize("gates", [ComponentGates, LoweringGates, PipelineGates])
def test_the_bounds_that_every_plan_must_have_are_on_registered_metrics(gates):
    """The score of the user's own function is no metric: it looks at one picture."""
    declared = gates.model_fields.keys() - {"score_drop_max"}

    assert declared
    assert declared <= {metric.gate for metric in metrics_of(gates.level)}
