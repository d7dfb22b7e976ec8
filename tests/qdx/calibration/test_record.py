"""Ranges belong to a pipeline and a plan: a target changes none of them, and an export traces no graph for them again."""

from __future__ import annotations

import json

import pytest
import torch

import qdx
from qdx.calibration.record import record_ranges
from qdx.exporter.calibrate.ranges_file import dump_ranges
from qdx.exporter.plan import load_plan
from qdx.source.pipeline import trace_pipeline
from qdx.source.planned import plan_graphs
from qdx.targets.profile import load_target
from tests.support.quantizing import CALL, STATIC, plan, write_plan

SD_CALL = {"prompt": "a", "height": 16, "width": 16, "num_inference_steps": 2}
SYMMETRIC = {**STATIC, "inputs": {"dtype": "int8", "symmetric": True}}
TARGETS = ("onnxruntime", "openvino", "coreml", "tensorrt")


@pytest.fixture(name="traces")
def _traces(monkeypatch):
    """What is traced, by name of the traced method's module class, in order."""
    found = []
    original = torch.export.export

    def counting(module, *given, **options):
        found.append(type(module.module).__name__)
        return original(module, *given, **options)

    monkeypatch.setattr(torch.export, "export", counting)
    return found


def test_a_calibrated_export_traces_each_graph_once(tiny_sd, tmp_path, traces):
    result = qdx.export(
        tiny_sd,
        target="onnxruntime",
        plan=write_plan(tmp_path, plan(smoothing={"alpha": 0.5})),
        output=tmp_path / "bundle",
        call=dict(SD_CALL),
    )

    assert json.loads((result.bundle / "qdx.json").read_text())["calibration"] is not None
    assert len(traces) == len(result.methods)


def test_another_size_to_calibrate_with_is_traced_of_its_own(smallest, tmp_path, traces):
    asked = plan()
    asked["calibration"]["call"] = {"num_inference_steps": 2}
    qdx.export(
        smallest,
        target="onnxruntime",
        plan=write_plan(tmp_path, asked),
        output=tmp_path / "bundle",
        call=dict(CALL),
    )

    assert traces == ["UNet2DModel", "UNet2DModel"]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("model", ["smallest", pytest.param("tiny_sd", marks=pytest.mark.slow)])
def test_a_target_s_own_inputs_change_no_range(request, tmp_path, model, target):
    call = CALL if model == "smallest" else SD_CALL
    asked = load_plan(write_plan(tmp_path, plan(SYMMETRIC)))
    source = trace_pipeline(request.getfixturevalue(model), dict(call))
    neutral = record_ranges(source, asked, dict(call))

    planned = plan_graphs(source, asked, load_target(target))
    found = record_ranges(source, asked, dict(call), planned=planned)

    assert dump_ranges(found) == dump_ranges(neutral)
