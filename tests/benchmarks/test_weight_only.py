"""Bytes of weights in 8 and 4 bits: the formula holds on disk, and the runtime computes with them."""

from __future__ import annotations

import pytest

pytest.importorskip("diffusers")

from benchmarks.weight_only import measure
from tests.support.tiny import build

# Of a tiny model, what is not a weight (tables of timestep frequencies, shapes) is a visible share.
TOLERANCE = {"w8": 0.04, "w4": 0.05}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return build("sd", tmp_path_factory.mktemp("model") / "sd")


@pytest.mark.slow
@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("plan", ["w8", "w4"])
def test_weights_take_what_the_formula_says(plan, target, model, tmp_path):
    pytest.importorskip(target)

    size = measure(model, plan, target, tmp_path)

    assert size.parameters > 50_000
    assert abs(size.excess) <= TOLERANCE[plan]
    assert size.sqnr_db >= 60
