"""A pipeline exported for RTX cards and verified without one: the engines are audited by their builder's log."""

from __future__ import annotations

import pytest

import qdx
from qdx.backends.registry import get_backend
from qdx.bundle import read_bundle
from qdx.engines.lint import lint_bundle
from qdx.exporter.errors import InvalidBundle
from tests.support.rtx_builds import skip_without_builder

CALL = {"num_inference_steps": 2, "height": 16, "width": 16}


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["w8a8", "fp8", "w4"])
def test_a_bundle_is_verified_with_engines_that_were_built_and_not_run(tiny_sd, tmp_path, preset):
    skip_without_builder()
    if get_backend("tensorrt-rtx").runs_here():
        pytest.skip("a device is here, which runs the engines")
    output = tmp_path / "bundle"
    qdx.export(tiny_sd, target="rtx-ada", plan=preset, output=output, call=CALL, prompts=["a dog"])
    report = qdx.verify(output, model=tiny_sd)

    assert report.proof.status == "engine-built"
    (audit,) = [one for one in report.audits if one.component == "unet"]
    ways = audit.engines["unet.forward"].facts()["ways"]
    if preset == "w4":
        assert ways["native"] == 0
        assert ways["weights_in_product"] > 0
        return
    assert f"compiled for {'int8' if preset == 'w8a8' else 'float8_e4m3fn'} operands" in str(report)
    assert ways["native"] > 0
    assert ways["float"] == 0
    overflowing = audit.engines["unet.forward"].overflowing
    found = [one for each in lint_bundle(read_bundle(output)).values() for one in each]
    assert len([one for one in found if one.rule == "raw-sum"]) == len(overflowing)
    (gate,) = [one for one in report.gates if one.name == "unet.audit.compiled_share"]
    assert gate.value == audit.compiled_share


@pytest.mark.slow
def test_a_log_that_was_exchanged_is_refused_before_anything_runs(tiny_sd, tmp_path):
    skip_without_builder()
    output = tmp_path / "bundle"
    qdx.export(tiny_sd, target="rtx-ada", plan="w8", output=output, call=CALL)
    log = output / "unet" / "engine.layers.txt"
    log.write_text(log.read_text().replace("Int8", "Half"))

    with pytest.raises(InvalidBundle, match=r"engine\.layers\.txt"):
        qdx.verify(output, model=tiny_sd)
