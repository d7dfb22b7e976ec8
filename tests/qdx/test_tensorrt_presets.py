"""The presets for TensorRT on a whole pipeline: no rule is broken, and ONNX Runtime computes what the graphs compute."""

from __future__ import annotations

import onnx
import pytest

import qdx
from qdx.bundle import read_bundle
from qdx.lint import lint_bundle

CALL = {"num_inference_steps": 2, "height": 16, "width": 16}


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["float16", "w8a8-symmetric", "fp8", "w4-float16"])
def test_a_preset_on_a_whole_pipeline(tiny_sd, tmp_path, preset):
    output = tmp_path / "bundle"
    qdx.export(tiny_sd, target="tensorrt", plan=preset, output=output, call=CALL, prompts=["a dog"])

    bundle = read_bundle(output)
    for folder, found in lint_bundle(bundle).items():
        assert [one for one in found if one.severity == "error"] == []
        onnx.checker.check_model(str(output / folder / "model.onnx"), full_check=True)
    report = qdx.verify(output, model=tiny_sd)
    lowering = [gate for gate in report.gates if "lowering" in gate.name]
    assert report.proof.status == "artifact-verified"
    assert bool(lowering) == (preset != "float16")
    assert [gate for gate in lowering if not gate.ok] == []
