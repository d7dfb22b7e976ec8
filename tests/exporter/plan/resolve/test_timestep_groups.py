"""Recorded ranges must have the groups of timesteps that a plan speaks of."""

from __future__ import annotations

import pytest

from qdx.exporter.errors import UsageError
from qdx.exporter.plan import resolve
from qdx.exporter.plan.resolve.timestep_groups import check_groups
from qdx.targets import load_target
from tests.support.plans import INT8, SITES, plan_of


class Recorded:
    """Ranges of some groups of timesteps."""

    def __init__(self, groups):
        self.boundaries = tuple(float(-n) for n in range(groups - 1))

    def groups(self, where):
        assert where == "unet.forward"
        return self.boundaries


def resolved(**inputs):
    rule = {"select": {"component": "unet", "op": "linear"}, "weights": INT8,
            "inputs": {**INT8, **inputs}}  # fmt: skip
    plan = plan_of(rule, calibration={"timestep_groups": 10})
    return resolve(plan, ["unet", "vae"], load_target("openvino"), SITES)


def test_as_many_groups_as_the_plan_has():
    check_groups(resolved(timestep_groups=5), Recorded(10), "unet.forward")


@pytest.mark.parametrize("recorded", [1, 4, 9])
def test_fewer_are_refused_with_the_way_out(recorded):
    with pytest.raises(UsageError) as caught:
        check_groups(resolved(timestep_groups=5), Recorded(recorded), "unet.forward")

    assert str(caught.value).startswith(
        f"`unet.forward`: scales by timestep, in 10 groups, and calibration distinguishes {recorded}"
    )
    assert "10 steps or more (`calibration.steps` in the plan)" in caught.value.hint
    other_way = f"to {recorded} or fewer" if recorded > 1 else "leave its component out of the rule"
    assert other_way in caught.value.hint


def test_more_are_those_of_another_plan():
    with pytest.raises(UsageError) as caught:
        check_groups(resolved(timestep_groups=2), Recorded(20), "unet.forward")

    assert caught.value.hint == "calibrate with this plan; the ranges belong to another"


@pytest.mark.parametrize("recorded", [Recorded(1), Recorded(20), None])
def test_groups_do_not_matter_to_scales_of_all_timesteps(recorded):
    check_groups(resolved(), recorded, "unet.forward")
    check_groups(resolved(timestep_groups=5), recorded, "vae.decode")
