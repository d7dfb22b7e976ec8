"""NVIDIA's own builder compiles what qdx writes, without a device: the samples with presets on targets of TensorRT-RTX."""

from __future__ import annotations

import pytest

from tests.support.rtx_presets import EVERYTHING, check, turns

pytest.importorskip("tensorrt_rtx")


def test_a_sample_builds_with_every_plan_for_every_target(tmp_path):
    check("shapes", EVERYTHING, tmp_path)


def test_the_other_sample_builds_for_every_target(tmp_path):
    check("shapes-mmdit", list(turns(3)), tmp_path)


@pytest.mark.slow
def test_the_other_sample_builds_with_every_plan_for_every_target(tmp_path):
    check("shapes-mmdit", EVERYTHING, tmp_path)
