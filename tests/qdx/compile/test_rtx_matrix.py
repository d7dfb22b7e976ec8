"""NVIDIA's own builder compiles what qdx writes, without a device: every preset on every target of TensorRT-RTX."""

from __future__ import annotations

import pytest

from qdx.backends.tensorrt.engine.produce_ahead import BUILDER
from tests.support.layers import ROOT
from tests.support.rtx_matrix import PLANS, TARGETS, cells, smaller
from tests.support.tiny import FAMILIES, build

pytest.importorskip("tensorrt_rtx")

SAMPLES = ("shapes", "shapes-mmdit")
TINY = ("sd", "sdxl", "sd3", "flux", "pixart", "wan")
PROMPT = "a red circle left of a blue square"
REFUSED = {
    **{(target, "fp8"): "8.9" for target in ("tensorrt-rtx", "rtx-turing", "rtx-ampere")},
    **{(target, "nvfp4"): "12.0|8.9" for target in TARGETS if target != "rtx-blackwell"},
    ("rtx-turing", "w4"): "8.0",
}
"""What devices have no types for, with a word of the reason."""


def model(name, folder):
    if name in SAMPLES:
        return ROOT / "samples" / name, smaller({"prompt": PROMPT})
    return build(name, folder / "model"), smaller(FAMILIES[name].arguments())


@pytest.mark.parametrize(
    "name",
    [
        *SAMPLES,
        *TINY,
        *(pytest.param(one, marks=pytest.mark.slow) for one in FAMILIES if one not in TINY),
    ],
)
def test_every_preset_that_a_device_has_types_for_builds_for_it(name, tmp_path):
    path, call = model(name, tmp_path)
    try:
        found = {(cell.target, cell.plan): cell for cell in cells(path, call, tmp_path)}
    finally:
        BUILDER.close()

    assert found.keys() == {(target, plan) for target in TARGETS for plan in PLANS}
    for key, cell in found.items():
        if key in REFUSED or (key[1] == "w4" and "the inputs" in cell.refused):
            assert cell.refused, key
            continue
        assert (cell.refused, bool(cell.engines)) == ("", True), key
        for record in cell.engines.values():
            assert record.size_bytes > 0
            assert record.layers_sha256
