"""Groups of timesteps are told before anything computes, as calibration will record them."""

from __future__ import annotations

import pytest

from qdx.calibration.groups import group_timesteps
from qdx.exporter.plan import Calibration
from qdx.source.pipeline import trace_pipeline

CALL = {"prompt": "a red circle", "height": 16, "width": 16, "num_inference_steps": 8}


@pytest.fixture(scope="module")
def source(tiny_sd):
    return trace_pipeline(tiny_sd, CALL)


def test_each_group_has_its_highest_and_its_lowest_timestep(source):
    groups = group_timesteps(source, Calibration(timestep_groups=4))

    assert set(groups) == {"unet.forward"}
    ends = [end for group in groups["unet.forward"] for end in group]
    assert len(groups["unet.forward"]) == 4
    assert ends == sorted(ends, reverse=True)
    assert ends[0] > 800 > 200 > ends[-1]


def test_a_schedule_of_few_steps_has_few_groups(source):
    groups = group_timesteps(source, Calibration(steps=2, timestep_groups=10))

    assert all(highest == lowest for highest, lowest in groups["unet.forward"])
    assert len(groups["unet.forward"]) < 10
