"""NVIDIA's own builder compiles what qdx writes, without a device: families of pipelines on targets of TensorRT-RTX."""

from __future__ import annotations

import pytest

from tests.support.rtx_presets import EVERYTHING, HAD, check, turns
from tests.support.tiny import FAMILIES

pytest.importorskip("tensorrt_rtx")

TINY = ("sdxl", "sd3", "flux", "wan", "sd", "pixart")
"""In such an order that each takes plans in blocks only where blocks divide its inputs."""
LONG = {"sdxl", "sd3", "wan", "pixart"}
"""Those whose engines take most of the time."""


def test_the_turns_reach_every_plan_of_every_target():
    assert {pair for number in range(len(TINY)) for pair in turns(number)} == set(HAD)


@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=pytest.mark.slow) if one in LONG else one for one in TINY]
)
def test_a_family_builds_for_every_target(name, tmp_path):
    check(name, list(turns(TINY.index(name))), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_everything_builds_with_every_plan_for_every_target(name, tmp_path):
    check(name, EVERYTHING, tmp_path)
