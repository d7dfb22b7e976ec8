"""A folder that another tool quantized becomes a plan and a file of weights, and an artifact that has its integers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import qdx
from qdx.bundle.recipes import read_recipe, rebuilt
from qdx.cli.main import run_command
from qdx.exporter.errors import InvalidInput, UsageError
from qdx.exporter.formats.given import check_parts
from qdx.exporter.formats.rounding import ROUNDINGS, RoundingMethod
from qdx.exporter.transforms.given import TakeGiven
from qdx.exporter.transforms.given_file import read_given
from qdx.importing.plans import operations_of
from qdx.importing.results import import_result, read_result
from qdx.source.pipeline import trace_pipeline
from qdx.targets import load_target
from tests.support.smallest import build_smallest, build_smallest_text_to_image

MADE = Path(__file__).parent / "made"
TEXT_CALL = {"prompt": "a fox", "num_inference_steps": 1}
CALL = {"num_inference_steps": 1}
LAYER = "time_embedding.linear_2"
"""A layer of this name and shape is in both models of the tests."""
GATES = {"component": {"sqnr_db_min": 5}, "lowering": {"sqnr_db_min": 60}, "pipeline": {"psnr_db_min": 1, "ssim_min": 0.0}}  # fmt: skip


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    """A model that has the layer, with weights of its own."""
    return build_smallest(tmp_path_factory.mktemp("results") / "stranger")


@pytest.fixture(scope="module")
def model(stranger, tmp_path_factory):
    """One whose layer the tools have quantized."""
    folder = tmp_path_factory.mktemp("results") / "model"
    shutil.copytree(stranger, folder)
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    values = load_file(MADE / "torchao-int8-values.safetensors")[LAYER]
    save_file(load_file(path) | {f"{LAYER}.weight": values}, path, {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def traced(model):
    return operations_of(model, dict(CALL))


@pytest.fixture(scope="module")
def imported(model, tmp_path_factory):
    """A plan and a file of weights of torchao's folder."""
    place = tmp_path_factory.mktemp("imported")
    assert run_import(cut("torchao-int8", place), model, place, "--target", "onnxruntime") == 0
    return place


@pytest.fixture(scope="module")
def bundle(model, imported, tmp_path_factory):
    place = tmp_path_factory.mktemp("bundle") / "bundle"
    qdx.export(model, target="onnxruntime", plan=gated(imported), weights=imported / "weights.qdx", call=dict(CALL), output=place)  # fmt: skip
    return place


def cut(name, place):
    """A folder of a tool, of the timestep's layers alone."""
    folder = place / name
    folder.mkdir()
    path = MADE / name / "diffusion_pytorch_model.safetensors"
    with safe_open(path, "pt") as file:
        metadata = {k: v for k, v in file.metadata().items() if k.startswith("time_") or k == "format"}  # fmt: skip
    tensors = {k: v for k, v in load_file(path).items() if k.startswith("time_")}
    save_file(tensors, folder / path.name, metadata)
    (folder / "config.json").write_text((MADE / name / "config.json").read_text())
    return folder


def gated(place):
    """The imported plan, with floats in float32 and gates that a rounding of its own would fail."""
    plan = json.loads((place / "plan.json").read_text())
    plan["gates"] = GATES
    plan["rules"].insert(0, {"select": {"component": "*"}, "weights": {"dtype": "float32"}})
    (place / "gated.json").write_text(json.dumps(plan))
    return place / "gated.json"


def run_import(path, model, place, *arguments, call=CALL):
    words = ["plan", "import", path, "--model", model, "--call", json.dumps(call), "-o", place / "plan.json"]  # fmt: skip
    return run_command([str(one) for one in (*words, "--save-weights", place / "weights.qdx", *arguments)])  # fmt: skip


def test_the_artifact_has_the_integers_and_scales(imported, bundle):
    given = read_given(imported / "weights.qdx").weights["unet"][f"{LAYER}.weight"]
    graph = onnx.load(bundle / "unet" / "model.onnx").graph
    stored = [numpy_helper.to_array(one) for one in graph.initializer]
    values = given.parts[""].numpy()
    wanted = {values.tobytes(), np.ascontiguousarray(values.T).tobytes()}

    assert any(one.dtype == np.int8 and one.tobytes() in wanted for one in stored)
    scale = given.parts[".scale"].numpy().tobytes()
    assert any(one.dtype == np.float32 and one.tobytes() == scale for one in stored)


def test_the_recipe_makes_the_same_graph_again(model, bundle):
    recipe = read_recipe(bundle / "unet")
    graph = trace_pipeline(model, dict(CALL)).graph("unet.forward")
    _, quantized = rebuilt(graph, recipe)
    _, found = read_result(MADE / "torchao-int8")
    name = f"{LAYER}.weight"

    assert recipe.find(TakeGiven).weights.keys() == {name}
    assert torch.equal(quantized.weights[name].read(), found.weights[name].parts[""])


def test_verify_needs_no_more_than_the_bundle_and_the_model(model, bundle):
    report = qdx.verify(bundle, model=model)

    assert next(g for g in report.gates if g.name == "unet.forward.lowering.sqnr_db").ok, str(report)  # fmt: skip


@pytest.mark.parametrize(
    "name", ["quanto-float8", "modelopt-fp8", "bitsandbytes-int8", "Q4_0.gguf"]
)
def test_what_fits_the_model_is_taken_and_the_rest_refused(traced, name):
    result = import_result(MADE / name, *traced)
    rules = result.imported.plan.rules

    assert result.given.weights["unet"].keys() == {f"{LAYER}.weight"}
    assert [rule.select.name for rule in rules if rule.weights.quantized] == [(LAYER, f"{LAYER}#*")]
    assert all("the model has no" in one.words for one in result.imported.refused)
    assert any("the least like the model's is" in one.words for one in result.imported.findings)


def test_what_a_target_refuses_is_in_neither_file(traced):
    result = import_result(MADE / "modelopt-nvfp4", *traced, profile=load_target("onnxruntime"))

    assert result.given is None
    assert any("no kernels of floats in blocks" in one.words for one in result.imported.refused)
    assert not result.imported.plan.quantizes


def test_with_something_refused_nothing_is_written(model, tmp_path, capsys):
    assert run_import(MADE / "modelopt-fp8", model, tmp_path) == 3
    assert "the model has no" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("plan", "import", MADE / "modelopt-fp8", "-o", "p.json"), "no --model"),
        (("plan", "import", MADE / "modelopt-fp8", "-o", "p.json", "--model", "m"), "no --save-weights"),
        (("plan", "import", "c.json", "-o", "p.json", "--save-weights", "w"), "a plan has no weights"),
        (("plan", "import", "m.pth", "-o", "p.json", "--model", "m", "--save-weights", "w"), "a pickle, which is a program"),
    ],
)  # fmt: skip
def test_wrong_usage(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert run_command([str(one) for one in arguments]) == 2
    assert words in capsys.readouterr().err


def changed(path, place, **tensors):
    with safe_open(path, "pt") as file:
        metadata = dict(file.metadata())
    name = f"unet.{LAYER}.weight"
    found = load_file(path) | {f"{name}.{part}": one for part, one in tensors.items()}
    save_file({k: v for k, v in found.items() if v is not None}, place, metadata)
    return place


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"scale": torch.zeros(32)}, "not finite and above zero"),
        ({"scale": torch.full((32,), torch.nan)}, "not finite and above zero"),
        ({"scale": torch.ones(31)}, "expected torch.float32"),
        ({"values": torch.ones(32, 31, dtype=torch.int8)}, "expected torch.int8"),
        ({"values": torch.ones(32, 32)}, "expected torch.int8"),
    ],
)
def test_a_file_of_weights_with_other_parts_is_refused(imported, tmp_path, tensors, words):
    path = changed(imported / "weights.qdx", tmp_path / "w.qdx", **tensors)
    one = read_given(path).weights["unet"][f"{LAYER}.weight"]
    with pytest.raises(ValueError, match=words):
        check_parts((32, 32), one.quantization, one.parts)


def test_an_export_checks_the_parts(model, imported, tmp_path):
    path = changed(imported / "weights.qdx", tmp_path / "w.qdx", scale=torch.zeros(32))
    with pytest.raises(UsageError, match=r"linear_2`: given weights do not fit: scale"):
        qdx.export(model, target="onnxruntime", plan=imported / "plan.json", weights=path, call=dict(CALL), output=tmp_path / "b")  # fmt: skip
    assert not (tmp_path / "b").exists()


def test_weights_of_another_model_are_refused_at_export(stranger, imported, tmp_path):
    with pytest.raises(UsageError, match=r"dB against the model's, and zeros would have 0") as wrong:  # fmt: skip
        qdx.export(stranger, target="onnxruntime", plan=imported / "plan.json", weights=imported / "weights.qdx", call=dict(CALL), output=tmp_path / "b")  # fmt: skip

    assert "another model" in wrong.value.hint
    assert not (tmp_path / "b").exists()


def test_weights_of_another_model_are_refused_when_they_are_read(stranger, tmp_path, capsys):
    assert run_import(cut("torchao-int8", tmp_path), stranger, tmp_path) == 3
    assert "it is of another model" in capsys.readouterr().out
    assert not (tmp_path / "weights.qdx").exists()


@pytest.mark.parametrize(
    ("options", "lora", "words"),
    [
        ({"smoothing": {"alpha": 0.5}}, (), "asks for `smoothing`"),
        ({"bias_correction": True}, (), "asks for `bias_correction`"),
        ({}, ("adapter.safetensors",), "adapters to merge"),
    ],
)
def test_what_changes_weights_before_they_are_stored_is_refused(model, imported, tmp_path, options, lora, words):  # fmt: skip
    rule = {"weights": {"dtype": "int8"}, "inputs": {"dtype": "int8"}, "select": {"op": "linear"}}
    (tmp_path / "p.json").write_text(json.dumps({"schema": "qdx.plan/1", "rules": [rule], "options": options, "gates": {}}))  # fmt: skip
    with pytest.raises(UsageError, match=words):
        qdx.export(model, target="onnxruntime", plan=tmp_path / "p.json", weights=imported / "weights.qdx", lora=lora, output=tmp_path / "b")  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"),
    [({"low_rank": {"rank": 2}}, "`low_rank` part"), ({"rotate": {}}, "rotates")],
)
def test_a_branch_or_rotation_of_given_weights_is_refused(model, imported, tmp_path, change, words):
    rule = {"weights": {"dtype": "int8", **change}, "select": {"op": "linear"}}
    (tmp_path / "p.json").write_text(json.dumps({"schema": "qdx.plan/1", "rules": [rule], "gates": {}}))  # fmt: skip
    with pytest.raises(UsageError, match=words):
        qdx.export(model, target="onnxruntime", plan=tmp_path / "p.json", weights=imported / "weights.qdx", output=tmp_path / "b")  # fmt: skip


def test_another_rounding_is_refused(model, imported, tmp_path, monkeypatch):
    class Anyhow(RoundingMethod):
        def rounding(self, shape, learned):
            return lambda scaled: scaled.floor()

    monkeypatch.setitem(ROUNDINGS, "anyhow", Anyhow())
    plan = json.loads((imported / "plan.json").read_text())
    for rule in plan["rules"]:
        if rule["weights"]["dtype"] == "int8":
            rule["weights"]["rounding"] = "anyhow"
    (tmp_path / "p.json").write_text(json.dumps(plan))
    with pytest.raises(UsageError, match="rounds it by `anyhow`"):
        qdx.export(model, target="onnxruntime", plan=tmp_path / "p.json", weights=imported / "weights.qdx", call=dict(CALL), output=tmp_path / "b")  # fmt: skip


@pytest.mark.parametrize(
    ("plan", "words"), [("float32", "stores it as floats"), ("int4", "the plan says dtype `int4`")]
)
def test_a_plan_that_asks_otherwise_is_refused(model, imported, tmp_path, plan, words):
    rule = {"select": {"component": "unet", "op": "linear"}, "weights": {"dtype": "int4", "granularity": "channel"}}  # fmt: skip
    asked = {"schema": "qdx.plan/1", "rules": [rule], "gates": {}}
    (tmp_path / "p.json").write_text(json.dumps(asked))
    given = "float32" if plan == "float32" else tmp_path / "p.json"
    with pytest.raises(UsageError, match=words):
        qdx.export(model, target="onnxruntime", plan=given, weights=imported / "weights.qdx", call=dict(CALL), output=tmp_path / "b")  # fmt: skip


def test_a_file_that_is_none_of_weights(imported, tmp_path):
    save_file({"a": torch.ones(1)}, tmp_path / "w.safetensors")
    with pytest.raises(InvalidInput, match="not a file of given weights"):
        read_given(tmp_path / "w.safetensors")
    missing = changed(imported / "weights.qdx", tmp_path / "w.qdx", scale=None)
    with pytest.raises(InvalidInput, match=r"scale` is missing"):
        read_given(missing)


def test_a_file_of_weights_with_another_header(imported, tmp_path):
    path = imported / "weights.qdx"
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["qdx"])
    for value in (None, {}, {**header, "schema": "qdx.weights/9"}, {**header, "tool": 3}, {**header, "more": 1}, {**header, "components": {}}):  # fmt: skip
        save_file(load_file(path), tmp_path / "w.qdx", {"qdx": json.dumps(value)})
        with pytest.raises(InvalidInput):
            read_given(tmp_path / "w.qdx")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("torchao-int8", "onnxruntime"),
        ("Q4_0.gguf", "onnxruntime"),
        ("torchao-int8", "openvino"),
        ("Q4_0.gguf", "openvino"),
        ("torchao-float8", "openvino"),
        ("torchao-int8", "coreml"),
        ("Q4_0.gguf", "coreml"),
        ("torchao-int8", "tensorrt"),
        ("torchao-float8", "tensorrt"),
    ],
)
def test_the_artifact_computes_with_the_given_numbers(name, target, tmp_path):
    model = build_smallest_text_to_image(tmp_path / "model")
    assert run_import(MADE / name, model, tmp_path, "--target", target, call=TEXT_CALL) == 0
    bundle = tmp_path / "bundle"
    qdx.export(model, target=target, plan=gated(tmp_path), weights=tmp_path / "weights.qdx", call=dict(TEXT_CALL), components=["unet"], output=bundle)  # fmt: skip
    report = qdx.verify(bundle, model=model)
    gate = next(gate for gate in report.gates if gate.name == "unet.forward.lowering.sqnr_db")

    assert read_recipe(bundle / "unet").find(TakeGiven) is not None
    assert gate.ok, str(report)
