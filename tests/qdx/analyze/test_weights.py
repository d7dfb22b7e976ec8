"""Steps weighed by what part of the final error they make."""

from __future__ import annotations

import pytest
import torch

from qdx.analyze.calls import Moment
from qdx.analyze.trajectory_data import CallWeight, Missing
from qdx.analyze.weighing import read_weighing
from qdx.analyze.weights import trajectory_weights, weighed, weighed_moments
from qdx.exporter.errors import UsageError

WHERE = "unet.forward"


def weights(*values):
    return [CallWeight(where=WHERE, step=n, weight=one) for n, one in enumerate(values)]


def moment(step, sample=0, calls=1):
    return Moment(WHERE, sample, step, float(step), tuple(range(calls)), weight=0.1)


def test_steps_that_were_not_measured_count_with_the_nearest():
    found = weighed_moments([moment(0), moment(3), moment(3, 1)], weights(4, 1, 2, 1, 2))

    assert [one.weight for one in found] == pytest.approx([0.5, 0.25, 0.25])


def test_an_earlier_step_takes_what_lies_between():
    found = weighed_moments([moment(0), moment(2)], weights(0, 1, 0))

    assert [one.weight for one in found] == [1, 0]


def test_means_and_errors_count_by_the_weights(analyzed_once):
    made = analyzed_once("int8", "int4")
    given = weights(0.7, 0.2, 0.1)
    assert made.analysis.single  # looked up before, as a search does

    analysis, arrays = weighed(made.analysis, made.noise, given)

    assert sum(call.weight for call in analysis.calls) == pytest.approx(1)
    by_step = {n: sum(c.weight for c in analysis.calls if c.step == n) for n in range(3)}
    assert by_step == pytest.approx({0: 0.7, 1: 0.2, 2: 0.1})
    own = torch.tensor([call.weight for call in analysis.calls], dtype=torch.float64)
    for (group, option), row in analysis.single.items():
        expected = float(arrays[f"single.{WHERE}"][group, option, :, 0] @ own)
        assert row.prediction == pytest.approx(expected)
        assert row.prediction != made.analysis.single[group, option].prediction
        for name, value in (("errors", row.prediction), ("guidance_errors", row.guidance)):
            squared = float(arrays[f"{name}.{WHERE}"][group, option].double().square().sum())
            assert squared == pytest.approx(value, rel=1e-4)
    assert analysis.cumulative[WHERE, 2] != made.analysis.cumulative[WHERE, 2]


def test_what_was_not_followed_cannot_weigh(analyzed_once):
    analysis = analyzed_once("int8", "int4").analysis
    with pytest.raises(UsageError, match="no errors over whole runs"):
        trajectory_weights(analysis)
    missing = analysis.model_copy(update={"trajectory": Missing(why_not="a reason")})
    with pytest.raises(UsageError, match="a reason"):
        trajectory_weights(missing)


def test_other_ways_to_weigh_are_refused():
    assert read_weighing("trajectory") == "trajectory"
    with pytest.raises(UsageError, match="--weigh: got `time`"):
        read_weighing("time")
