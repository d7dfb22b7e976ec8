"""Pipelines that no folder can say are exported from memory, compute as they did, and are left as they were."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

import qdx
from qdx.compile.export import ExportResult
from qdx.exporter.errors import InvalidModel, UsageError
from qdx.exporter.plan import load_plan
from tests.support.live_pipelines import CALL, LIVE, differences, drawn, snapshot
from tests.support.processor import SEVEN_BITS

ALONE = {"pruned", "shortened", "perturbed", "adapted"}
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
EXTRA = {"perturbed": {"pag_scale": 3.0}, "pictured": {"ip_adapter_image": PICTURE}}
FAST = {("pruned", "openvino"), ("own class", "onnxruntime")}
CASES = [
    pytest.param(kind, target, marks=() if (kind, target) in FAST else pytest.mark.slow)
    for kind in LIVE
    for target in ("onnxruntime", "openvino")
]


@dataclass(frozen=True)
class Exported:
    """A pipeline, what it drew before its export, what the export changed in it, and what it made."""

    pipeline: DiffusionPipeline
    call: dict[str, Any]
    expected: torch.Tensor
    changed: list[str]
    made: ExportResult


def exported(kind, target, place):
    pipeline, call = LIVE[kind](place), {**CALL, **EXTRA.get(kind, {})}
    expected = drawn(pipeline, call)
    before = snapshot(pipeline)
    made = qdx.export(pipeline, target=target, plan="float32", output=place / "bundle", call=call)
    return Exported(pipeline, call, expected, differences(before, snapshot(pipeline)), made)


@pytest.fixture(scope="module")
def own_class(tmp_path_factory):
    return exported("own class", "onnxruntime", tmp_path_factory.mktemp("own"))


@pytest.mark.parametrize(("kind", "target"), CASES)
def test_what_is_exported_from_memory_computes_as_the_object(kind, target, tmp_path, request):
    one = (
        request.getfixturevalue("own_class")
        if (kind, target) == ("own class", "onnxruntime")
        else exported(kind, target, tmp_path)
    )
    assert one.changed == []
    opened = qdx.open(one.made.bundle, model=None if kind in ALONE else one.pipeline)
    opened.set_progress_bar_config(disable=True)
    assert psnr_db(one.expected, drawn(opened, one.call)) >= 90


def test_a_class_of_somebodys_own_cannot_be_opened_without_it(own_class):
    made = own_class.made
    assert any("can be opened only with its pipeline" in note for note in made.notes)
    with pytest.raises(UsageError, match="the installed diffusers has no class `Sharpened`"):
        qdx.open(made.bundle)


@pytest.mark.slow
def test_a_quantized_export_from_memory_passes_its_gates(tmp_path):
    pipeline = LIVE["pruned"](tmp_path)
    bundle, call = tmp_path / "bundle", {**CALL, "num_inference_steps": 4}
    plan = load_plan("w8a8").to_json()
    if SEVEN_BITS:
        for rule in plan["rules"]:
            if rule.get("weights", {}).get("dtype") == "int8":
                rule["weights"]["reduce_range"] = True
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    qdx.export(
        pipeline, target="onnxruntime", plan=tmp_path / "plan.json", output=bundle, call=call
    )
    report = qdx.verify(bundle, model=pipeline)
    assert report.ok, [gate for gate in report.gates if not gate.ok]


@pytest.mark.slow
def test_a_pipeline_with_other_weights_is_not_the_one_that_was_exported(tmp_path):
    pipeline = LIVE["pruned"](tmp_path)
    bundle = tmp_path / "bundle"
    qdx.export(pipeline, target="onnxruntime", plan="float32", output=bundle, call=CALL)
    with torch.no_grad():
        pipeline.unet.conv_in.bias[0] += 1
    with pytest.raises(InvalidModel, match=r"unet/weights`: SHA-256"):
        qdx.verify(bundle, model=pipeline)


def psnr_db(expected: torch.Tensor, found: torch.Tensor) -> float:
    error = float((expected.double() - found.double()).square().mean())
    peak = float(expected.max() - expected.min())
    return math.inf if error == 0 else 10 * math.log10(peak**2 / error)
