from __future__ import annotations

import math

import pytest

from qdx.verification.measure.coverage import read_coverage


def record(seen=10, branches="both", copies=2, calls=1):
    return {
        "branches": branches,
        "guidance": {"unet.forward": {"copies": copies, "calls": calls}},
        "coverage": {"unet.forward": {"timestep_groups": 10, "timestep_groups_seen": seen}},
    }


def test_the_least_share_of_all_graphs_counts():
    found = record()
    found["coverage"]["other.forward"] = {"timestep_groups": 4, "timestep_groups_seen": 1}

    assert read_coverage(record()).timesteps_share == 1
    assert read_coverage(found).timesteps_share == 0.25


@pytest.mark.parametrize(("copies", "calls", "guided"), [(2, 1, True), (1, 2, True), (1, 1, False)])
def test_guidance_is_two_copies_or_two_calls(copies, calls, guided):
    assert read_coverage(record(copies=copies, calls=calls)).guided == guided


def test_a_bundle_that_was_not_calibrated_has_none():
    assert read_coverage(None) is None


@pytest.mark.parametrize(
    "bad",
    [None, {}, [], "x", {"unet.forward": 3}, {"unet.forward": {"timestep_groups": 0}},
     {"unet.forward": {"timestep_groups": "10", "timestep_groups_seen": True}}],
)  # fmt: skip
def test_what_is_no_record_counts_as_not_seen(bad):
    found = read_coverage({**record(), "coverage": bad})

    assert math.isnan(found.timesteps_share)
