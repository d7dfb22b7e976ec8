"""A way to round weights, added by one registration: a plan names it, the recipe stores it, verify does it again."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
import torch

from qdx.bundle.recipes import read_recipe, rebuilt
from qdx.exporter.errors import InvalidBundle, InvalidPlan
from qdx.exporter.formats.rounding import ROUNDINGS, Rounding, RoundingMethod
from qdx.exporter.plan.schema.load import plan_from_json
from qdx.exporter.plan.schema.plan import json_schema
from qdx.exporter.transforms.rounding import RoundWeights
from qdx.source.pipeline import trace_pipeline
from qdx.verification.verify import verify
from tests.support.quantizing import CALL, export, plan
from tests.support.smallest import build_smallest


class ErrorFeedback(RoundingMethod):
    """What one element of a row loses, the next one gets. Nothing is learned: the weight says it all."""

    def rounding(self, shape: tuple[int, ...], learned: Mapping[str, torch.Tensor]) -> Rounding:
        return carried


class Downwards(RoundingMethod):
    """Stores the whole numbers themselves, as a method does that learned them from data."""

    learns = ("integers",)
    calibrated = True

    def learned(self, weight, quantization, statistics):
        assert len(statistics.channel_absmax) == weight.shape[1], "what calibration recorded"
        values = weight.read(torch.float32)
        scale = values.abs().amax(dim=tuple(range(1, values.dim())), keepdim=True) / 127
        return {"integers": (values / scale).floor().clamp(-127, 127).to(torch.int8)}

    def rounding(self, shape: tuple[int, ...], learned: Mapping[str, torch.Tensor]) -> Rounding:
        integers = learned["integers"]
        if integers.dtype != torch.int8 or tuple(integers.shape) != shape:
            raise ValueError(f"integers {list(integers.shape)}, expected int8 {list(shape)}")
        return lambda scaled: integers.to(scaled.dtype)


def carried(scaled: torch.Tensor) -> torch.Tensor:
    """Whole numbers of rows whose running sums stay within a half."""
    sums = scaled.flatten(1).double().cumsum(dim=1).round()
    return (
        sums.diff(dim=1, prepend=torch.zeros(len(sums), 1).double()).reshape(scaled.shape).float()
    )


METHODS = {"error_feedback": ErrorFeedback(), "downwards": Downwards()}


def asking(method: str) -> dict[str, object]:
    value = plan({"weights": {"dtype": "int8", "rounding": method}})
    # Between the quantized graph in PyTorch and the artifact, whose weights are the same numbers.
    value["gates"]["lowering"] = {"sqnr_db_min": 70}
    return value


@pytest.fixture
def registered(monkeypatch):
    for name, method in METHODS.items():
        monkeypatch.setitem(ROUNDINGS, name, method)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return build_smallest(tmp_path_factory.mktemp("seams") / "model")


@pytest.fixture(scope="module")
def bundles(model, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        for name, method in METHODS.items():
            patch.setitem(ROUNDINGS, name, method)
        return {
            name: export(model, tmp_path_factory.mktemp(name), asking(name)).bundle
            for name in METHODS
        }


def gate(report, name):
    return next(gate for gate in report.gates if gate.name == name)


def test_a_plan_names_it_only_where_it_is_registered(monkeypatch):
    with pytest.raises(
        InvalidPlan, match="`error_feedback`, expected `nearest`, `gptq` or `adaround`"
    ):
        plan_from_json(asking("error_feedback"), source="p.json")
    monkeypatch.setitem(ROUNDINGS, "error_feedback", METHODS["error_feedback"])
    parsed = plan_from_json(asking("error_feedback"), source="p.json")

    assert parsed.rules[0].weights.rounding == "error_feedback"
    assert json_schema()["$defs"]["AskedWeights"]["properties"]["rounding"]["enum"] == [
        "nearest",
        "gptq",
        "adaround",
        "error_feedback",
    ]


def test_a_type_that_has_no_integers_refuses_it(registered):
    value = asking("error_feedback")
    value["rules"][0]["weights"]["dtype"] = "float8_e4m3fn"
    with pytest.raises(InvalidPlan, match="rounding `error_feedback` for float8_e4m3fn"):
        plan_from_json(value, source="p.json")


@pytest.mark.parametrize("name", METHODS)
def test_the_artifact_has_its_integers(registered, bundles, model, name):
    recipe = read_recipe(bundles[name] / "unet")
    graph = trace_pipeline(model, dict(CALL)).graph("unet.forward")
    weight = graph.weights["conv_in.weight"].read()
    _, quantized = rebuilt(graph, recipe)
    found = quantized.weights["conv_in.weight"].read().to(torch.int32)
    scale = quantized.weights["conv_in.weight_scale"].read().reshape(-1, 1, 1, 1)
    wanted = {"error_feedback": carried, "downwards": torch.floor}[name](weight / scale)

    assert set(recipe.find(RoundWeights).sites.values()) == {name}
    assert torch.equal(found, wanted.clamp(-127, 127).to(torch.int32))
    assert not torch.equal(found, (weight / scale).round().to(torch.int32))


@pytest.mark.parametrize("name", METHODS)
def test_verify_does_it_again(registered, bundles, model, name):
    report = verify(bundles[name], model=model)

    assert gate(report, "unet.forward.lowering.sqnr_db").ok, str(report)
    assert report.ok


def test_verify_tells_another_rounding_apart(registered, bundles, model, monkeypatch):
    monkeypatch.setitem(ROUNDINGS, "error_feedback", ROUNDINGS["nearest"])
    report = verify(bundles["error_feedback"], model=model)

    assert not gate(report, "unet.forward.lowering.sqnr_db").ok


def test_what_was_learned_for_another_weight_is_refused(registered, bundles, model, tmp_path):
    from safetensors.torch import load_file, save_file

    source = bundles["downwards"] / "unet"
    (tmp_path / "quantization.json").write_bytes((source / "quantization.json").read_bytes())
    tensors = load_file(source / "quantization.safetensors")
    tensors["rounding.conv_in.integers"] = tensors["rounding.conv_in.integers"][:1].clone()
    save_file(tensors, tmp_path / "quantization.safetensors")
    graph = trace_pipeline(model, dict(CALL)).graph("unet.forward")
    with pytest.raises(InvalidBundle, match=r"integers .*expected int8"):
        rebuilt(graph, read_recipe(tmp_path))


def test_a_bundle_of_it_is_refused_where_it_is_not_registered(bundles):
    stored = json.loads((bundles["downwards"] / "unet" / "quantization.json").read_text())

    assert stored["transforms"][0]["sites"]["conv_in"] == "downwards"
    with pytest.raises(InvalidBundle, match="expected one of nearest, gptq, adaround"):
        read_recipe(bundles["downwards"] / "unet")
