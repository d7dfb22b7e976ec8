"""NVIDIA's own builder compiles what qdx writes, without a device: the samples with presets on targets of TensorRT-RTX."""

from __future__ import annotations

import pytest

from tests.support.rtx_presets import EVERYTHING, check, turns

pytest.importorskip("tensorrt_rtx")


TURNS = {"shapes": 1, "shapes-mmdit": 3}
"""Which turn of plans and targets each takes; families of pipelines take all of them."""


@pytest.mark.parametrize("name", TURNS)
def test_a_sample_builds_for_every_target(name, tmp_path):
    check(name, list(turns(TURNS[name])), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", TURNS)
def test_a_sample_builds_with_every_plan_for_every_target(name, tmp_path):
    check(name, EVERYTHING, tmp_path)
