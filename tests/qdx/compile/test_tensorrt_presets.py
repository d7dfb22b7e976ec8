"""The presets for TensorRT on a whole pipeline: no rule is broken, and ONNX Runtime computes what the graphs compute."""

from __future__ import annotations

import onnx
import pytest

import qdx
from qdx.bundle import read_bundle
from qdx.engines.lint import lint_bundle
from tests.support import tiny
from tests.support.layers import ROOT
from tests.support.tiny.families import FAMILIES

CALL = {"num_inference_steps": 2, "height": 16, "width": 16}


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["float16", "w8a8", "fp8", "w4"])
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


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["nvfp4", "mxfp8"])
def test_blocks_of_floats_on_a_transformer(tmp_path, preset):
    """Executed without TensorRT: functions of standard operators stand for its own ones, and the report says so."""
    model = tiny.build("flux", tmp_path / "model")
    output, call = tmp_path / "bundle", dict(FAMILIES["flux"].call)
    call.pop("prompt", None)
    qdx.export(
        model, target="tensorrt-blackwell", plan=preset, output=output, call=call, prompts=["a dog"]
    )

    for folder, found in lint_bundle(read_bundle(output)).items():
        assert [one for one in found if one.severity == "error"] == []
        onnx.checker.check_model(str(output / folder / "model.onnx"), full_check=True)
    nodes = onnx.load(output / "transformer" / "model.onnx", load_external_data=False).graph.node
    assert {n.op_type for n in nodes if n.op_type.endswith("DynamicQuantize")} == {
        {"nvfp4": "TRT_FP4DynamicQuantize", "mxfp8": "TRT_MXFP8DynamicQuantize"}[preset]
    }
    report = qdx.verify(output, model=model)
    assert report.proof.status == "artifact-verified"
    assert "TensorRT's own operators by their definitions" in report.proof.executed_by
    decisive = [gate for gate in report.gates if "lowering" in gate.name or "audit" in gate.name]
    assert len(decisive) >= 2
    assert [gate for gate in decisive if not gate.ok] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["shapes", "shapes-mmdit"])
def test_nvfp4_holds_every_gate_on_a_trained_model(tmp_path, name):
    """Four bits of inputs make guidance twice as strong as it is, where nothing stands beside them."""
    model, output = ROOT / "samples" / name, tmp_path / "bundle"
    captions = (ROOT / "samples" / "captions.txt").read_text(encoding="utf-8").splitlines()
    call = {"prompt": "a red circle left of a blue square", "guidance_scale": 4, "num_inference_steps": 20}  # fmt: skip
    if name == "shapes-mmdit":
        call["max_sequence_length"] = 16
    qdx.export(
        model,
        target="tensorrt-blackwell",
        plan="nvfp4",
        output=output,
        call=call,
        prompts=captions[:4],
    )

    report = qdx.verify(output, model=model)
    assert any("conditioning" in gate.name for gate in report.gates)
    assert [gate for gate in report.gates if not gate.ok] == []
