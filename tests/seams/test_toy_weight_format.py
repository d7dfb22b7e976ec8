"""A format of weights, added by one registration: plans ask for it, targets take or refuse it, every backend lowers it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest
import torch

import qdx.targets.profile
from qdx.bundle.recipes import read_recipe, rebuilt
from qdx.exporter.errors import InvalidBundle, InvalidPlan, TargetRefusal
from qdx.exporter.formats.derived import DerivedParts
from qdx.exporter.formats.registry import FORMATS
from qdx.exporter.formats.weight_format import SchemeFault, WeightFormat
from qdx.exporter.graph.ir.weights import LazyWeight
from qdx.exporter.plan.schema.load import plan_from_json
from qdx.exporter.plan.schema.plan import json_schema
from qdx.source.pipeline import trace_pipeline
from qdx.targets.profile import load_target
from qdx.verification.verify import verify
from tests.support.layers import ROOT
from tests.support.quantizing import CALL, export, plan
from tests.support.smallest import build_smallest

RUNTIMES = ("onnxruntime", "openvino", "coreml", "tensorrt")


class Ternary(WeightFormat):
    """-1, 0 and 1 times a scale for each output channel, which is the mean of what is not 0.

    See https://arxiv.org/abs/1605.04711; in an artifact, integers of eight bits, which every runtime reads.
    """

    dtypes = ("ternary",)

    def bits(self, dtype):
        return 8

    def faults(self, scheme, given):
        for key in sorted(given):
            yield SchemeFault(key, f"`{key}` means nothing for ternary", "give `dtype` alone")

    def size_bytes(self, scheme, stored):
        return stored.value_bytes(8) + 4 * stored.shape[stored.output_axis]

    def check(self, quantization):
        if quantization.granularity != "channel" or not quantization.symmetric:
            raise ValueError("channels without zero points for ternary")

    def derive(self, weight, quantization):
        source = DerivedParts(weight, partial(self._parts, axis=quantization.axis))
        channels = (weight.shape[quantization.axis],)
        return {
            "": LazyWeight(weight.name, weight.shape, torch.int8, partial(source.read, ""), "int8"),
            ".scale": LazyWeight(
                f"{weight.name}.scale", channels, torch.float32, partial(source.read, ".scale"), "float32"
            ),
        }  # fmt: skip

    def read_back(self, insert, parts, quantization):
        how = [None, quantization.axis, 0, "int8"]
        return insert(torch.ops.qdx.dequantize.default, [parts[""], parts[".scale"], *how])

    def values(self, weight, quantization, rounding):
        parts = self._parts(weight, axis=quantization.axis)
        size = [1] * weight.dim()
        size[quantization.axis] = -1
        return parts[""].float() * parts[".scale"].reshape(size)

    def _parts(self, weight: torch.Tensor, *, axis: int) -> Mapping[str, torch.Tensor]:
        values = weight.float()
        rows = values.movedim(axis, 0).flatten(1)
        sizes = rows.abs()
        kept = sizes > 0.7 * sizes.mean(dim=1, keepdim=True)
        scale = (sizes * kept).sum(dim=1) / kept.sum(dim=1).clamp(min=1)
        signs = (rows.sign() * kept).reshape(values.movedim(axis, 0).shape).movedim(0, axis)
        return {
            "": signs.to(torch.int8).contiguous(),
            ".scale": torch.where(scale == 0, 1.0, scale),
        }


def asking(**weights: object) -> dict[str, object]:
    value = plan({"weights": {"dtype": "ternary", **weights}}, bias_correction=True)
    value["rules"].insert(0, {"select": {"component": "*"}, "weights": {"dtype": "float32"}})
    # Three numbers for a weight lose a lot; that the artifact computes with them is what is tested.
    value["gates"] = {
        "component": {"sqnr_db_min": 0},
        "pipeline": {"psnr_db_min": 0, "ssim_min": 0},
        "lowering": {"sqnr_db_min": 70},
    }
    return value


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setattr("qdx.exporter.formats.registry.FORMATS", [*FORMATS, Ternary()])


@pytest.fixture
def targets(monkeypatch, tmp_path):
    """A target for each runtime that stores ternary weights, beside those that come with qdx."""
    folder = tmp_path / "targets"
    shutil.copytree(ROOT / "targets", folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    for runtime in RUNTIMES:
        (folder / f"ternary-{runtime}.toml").write_text(
            f'extends = "{runtime}"\nname = "ternary-{runtime}"\n\n[[kernels]]\nop = ["conv2d", "linear"]\n'
            'weights = ["ternary"]\ninputs = ["float32"]\nform = "stored"\nwhy = "integers of eight bits"\n'
        )
    monkeypatch.setattr(qdx.targets.profile, "_FOLDER", folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return build_smallest(tmp_path_factory.mktemp("seams") / "model")


def gate(report, name):
    return next(gate for gate in report.gates if gate.name == name)


def test_a_plan_may_ask_for_it_and_editors_know_it():
    parsed = plan_from_json(asking(), source="p.json")
    schema = json_schema()["$defs"]["AskedWeights"]["properties"]["dtype"]["enum"]

    assert parsed.rules[1].weights.quantized
    assert "ternary" in schema
    with pytest.raises(InvalidPlan, match="`observer` means nothing for ternary"):
        plan_from_json(asking(observer="mse"), source="p.json")


def test_without_its_registration_there_is_no_such_type(monkeypatch):
    monkeypatch.undo()
    with pytest.raises(InvalidPlan, match=r"dtype` is `ternary`, expected `float32`.* or `float`"):
        plan_from_json(asking(), source="p.json")


def test_a_target_without_a_kernel_for_it_refuses_it(model, tmp_path):
    with pytest.raises(TargetRefusal, match="ternary weights"):
        export(model, tmp_path, asking())


@pytest.mark.parametrize(
    "runtime",
    [
        pytest.param(name, marks=() if name in {"onnxruntime", "coreml"} else pytest.mark.slow)
        for name in RUNTIMES
    ],
)
def test_a_target_that_stores_it_computes_with_it(targets, model, tmp_path, runtime, monkeypatch):
    pytest.importorskip({"coreml": "coremltools", "tensorrt": "onnxruntime"}.get(runtime, runtime))
    target = f"ternary-{runtime}"
    bundle: Path = export(model, tmp_path, asking(), target).bundle
    graph = trace_pipeline(model, dict(CALL)).graph("unet.forward", load_target(target))
    recipe = read_recipe(bundle / "unet")
    _, quantized = rebuilt(graph, recipe)
    stored = quantized.weights["conv_in.weight"].read()
    report = verify(bundle, model=model)

    assert {site.weight.dtype for site in recipe.placement.sites} == {"ternary"}
    assert set(stored.unique().tolist()) == {-1, 0, 1}
    assert report.ok, str(report)
    assert gate(report, "unet.forward.lowering.sqnr_db").value > 70

    monkeypatch.setattr(Ternary, "_parts", _others)
    assert not gate(verify(bundle, model=model), "unet.forward.lowering.sqnr_db").ok


def test_a_quantizer_that_no_export_writes_is_refused(targets, model, tmp_path):
    import json

    folder = export(model, tmp_path, asking(), "ternary-onnxruntime").bundle / "unet"
    data = json.loads((folder / "quantization.json").read_text())
    data["transforms"][-1]["sites"][0]["weight"]["symmetric"] = False
    (folder / "quantization.json").write_text(json.dumps(data))
    with pytest.raises(InvalidBundle, match="expected channels without zero points for ternary"):
        read_recipe(folder)


_RIGHT = Ternary._parts


def _others(self, weight, *, axis):
    """Scales that are not those of the artifact."""
    parts = _RIGHT(self, weight, axis=axis)
    return {**parts, ".scale": parts[".scale"] * 1.01}
