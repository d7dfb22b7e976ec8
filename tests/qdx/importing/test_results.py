"""A folder that another tool quantized becomes a plan and a file of weights, and an artifact that has its integers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from safetensors.torch import load_file, save_file

import qdx
from qdx.bundle.recipes import read_recipe, rebuilt
from qdx.cli.main import run_command
from qdx.exporter.errors import InvalidInput, UsageError
from qdx.exporter.transforms.given import TakeGiven
from qdx.exporter.transforms.given_file import read_given
from qdx.importing.results import read_result
from qdx.source.pipeline import trace_pipeline
from tests.support.smallest import build_smallest_text_to_image

MADE = Path(__file__).parent / "made"
CALL = {"prompt": "a fox", "num_inference_steps": 1}
LAYER = "time_embedding.linear_2"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return build_smallest_text_to_image(tmp_path_factory.mktemp("results") / "model")


@pytest.fixture(scope="module")
def imported(model, tmp_path_factory):
    """A plan and a file of weights of torchao's folder."""
    place = tmp_path_factory.mktemp("imported")
    status = run_import(model, place, "torchao-int8", "--target", "onnxruntime")
    assert status == 0
    return place


@pytest.fixture(scope="module")
def bundle(model, imported, tmp_path_factory):
    place = tmp_path_factory.mktemp("bundle") / "bundle"
    qdx.export(model, target="onnxruntime", plan=imported / "plan.json", weights=imported / "weights.qdx", call=dict(CALL), components=["unet"], output=place)  # fmt: skip
    return place


def run_import(model, place, name, *arguments):
    words = ["plan", "import", MADE / name, "--model", model, "--call", json.dumps(CALL), "-o", place / "plan.json"]  # fmt: skip
    return run_command([str(one) for one in (*words, "--save-weights", place / "weights.qdx", *arguments)])  # fmt: skip


def test_the_artifact_has_the_integers_and_scales(imported, bundle):
    given = read_given(imported / "weights.qdx").weights["unet"][f"{LAYER}.weight"]
    stored = {one.name: numpy_helper.to_array(one) for one in onnx.load(bundle / "unet" / "model.onnx").graph.initializer}  # fmt: skip
    values = given.parts[""].numpy()
    wanted = {values.tobytes(), np.ascontiguousarray(values.T).tobytes()}

    assert values.min() == -128, "which no symmetric rounding of ours makes"
    assert any(one.dtype == np.int8 and one.tobytes() in wanted for one in stored.values())
    scale = given.parts[".scale"].numpy().tobytes()
    assert any(one.dtype == np.float32 and one.tobytes() == scale for one in stored.values())


def test_the_recipe_makes_the_same_graph_again(model, imported, bundle):
    recipe = read_recipe(bundle / "unet")
    graph = trace_pipeline(model, dict(CALL)).graph("unet.forward")
    _, quantized = rebuilt(graph, recipe)
    _, found = read_result(MADE / "torchao-int8")

    assert recipe.find(TakeGiven).weights.keys() == found.weights.keys()
    for name, one in found.weights.items():
        assert torch.equal(quantized.weights[name].read(), one.parts[""])


def test_verify_needs_no_more_than_the_bundle(model, bundle):
    report = qdx.verify(bundle, model=model)
    lowering = next(gate for gate in report.gates if gate.name == "unet.sqnr_db")

    assert lowering.value > 25


def test_the_plan_alone_rounds_otherwise(model, imported, tmp_path):
    qdx.export(model, target="onnxruntime", plan=imported / "plan.json", call=dict(CALL), components=["unet"], output=tmp_path / "b")  # fmt: skip

    assert read_recipe(tmp_path / "b" / "unet").find(TakeGiven) is None


@pytest.mark.parametrize("name", ["quanto-float8", "Q4_0.gguf", "bitsandbytes-int8"])
def test_other_tools(model, name, tmp_path, capsys):
    assert run_import(model, tmp_path, name) == 0
    assert "the least like the model's is" in capsys.readouterr().out
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert [rule["weights"]["dtype"] for rule in plan["rules"]] == [
        {"quanto-float8": "float8_e4m3fn", "Q4_0.gguf": "int4", "bitsandbytes-int8": "int8"}[name]
    ]
    assert read_given(tmp_path / "weights.qdx").weights["unet"]


def test_what_a_target_refuses_is_in_neither_file_with_partial(model, tmp_path, capsys):
    assert run_import(model, tmp_path, "modelopt-nvfp4", "--target", "onnxruntime") == 3
    assert "no kernels of floats in blocks" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    assert run_import(model, tmp_path, "modelopt-nvfp4", "--target", "onnxruntime", "--partial") == 0  # fmt: skip
    assert not (tmp_path / "weights.qdx").exists(), "there is no weight left"


def test_weights_of_another_model_are_refused(model, tmp_path, capsys):
    tensors = load_file(MADE / "quanto-int8" / "diffusion_pytorch_model.safetensors")
    tensors = {f"other.{name}": tensor for name, tensor in tensors.items()}
    save_file(tensors, tmp_path / "w.safetensors")
    done = run_command([str(one) for one in ("plan", "import", tmp_path / "w.safetensors", "--model", model, "--call", json.dumps(CALL), "-o", tmp_path / "p.json", "--save-weights", tmp_path / "w.qdx")])  # fmt: skip

    assert done == 3
    assert "the model has no `other." in capsys.readouterr().out


def changed(path, place, **tensors):
    from safetensors import safe_open

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
def test_a_file_of_weights_with_other_parts_is_refused(model, imported, tmp_path, tensors, words):
    path = changed(imported / "weights.qdx", tmp_path / "w.qdx", **tensors)
    with pytest.raises(UsageError, match=words):
        qdx.export(model, target="onnxruntime", plan=imported / "plan.json", weights=path, call=dict(CALL), components=["unet"], output=tmp_path / "b")  # fmt: skip
    assert not (tmp_path / "b").exists()


def test_a_plan_that_asks_otherwise_is_refused(model, imported, tmp_path):
    for plan, words in (("float32", "stores it as floats"), ("w4", "the plan says dtype `int4`")):
        with pytest.raises(UsageError, match=words):
            qdx.export(model, target="onnxruntime", plan=plan, weights=imported / "weights.qdx", call=dict(CALL), components=["unet"], output=tmp_path / "b")  # fmt: skip


def test_a_file_that_is_none_of_weights(imported, tmp_path):
    save_file({"a": torch.ones(1)}, tmp_path / "w.safetensors")
    with pytest.raises(InvalidInput, match="not a file of given weights"):
        read_given(tmp_path / "w.safetensors")
    missing = changed(imported / "weights.qdx", tmp_path / "w.qdx", scale=None)
    with pytest.raises(InvalidInput, match=r"scale` is missing"):
        read_given(missing)


def test_a_file_of_weights_with_another_header(imported, tmp_path):
    from safetensors import safe_open

    path = imported / "weights.qdx"
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["qdx"])
    for value in (None, {}, {**header, "schema": "qdx.weights/9"}, {**header, "tool": 3}, {**header, "more": 1}, {**header, "components": {}}):  # fmt: skip
        save_file(load_file(path), tmp_path / "w.qdx", {"qdx": json.dumps(value)})
        with pytest.raises(InvalidInput):
            read_given(tmp_path / "w.qdx")


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("torchao-int8", "onnxruntime"),
        *(
            pytest.param(name, target, marks=pytest.mark.slow)
            for name, target in (
                ("Q4_0.gguf", "onnxruntime"),
                ("torchao-int8", "openvino"),
                ("Q4_0.gguf", "openvino"),
                ("torchao-float8", "openvino"),
                ("torchao-int8", "coreml"),
                ("Q4_0.gguf", "coreml"),
                ("torchao-int8", "tensorrt"),
                ("torchao-float8", "tensorrt"),
                ("modelopt-nvfp4", "tensorrt-blackwell"),
            )
        ),
    ],
)
def test_the_artifact_computes_with_the_given_numbers(model, name, target, tmp_path):
    assert run_import(model, tmp_path, name, "--target", target) == 0
    plan = json.loads((tmp_path / "plan.json").read_text())
    plan["gates"] = {"component": {"sqnr_db_min": 5}, "lowering": {"sqnr_db_min": 60}, "pipeline": {"psnr_db_min": 1, "ssim_min": 0.0}}  # fmt: skip
    plan["rules"].insert(0, {"select": {"component": "*"}, "weights": {"dtype": "float32"}})
    (tmp_path / "gated.json").write_text(json.dumps(plan))
    bundle = tmp_path / "bundle"
    qdx.export(model, target=target, plan=tmp_path / "gated.json", weights=tmp_path / "weights.qdx", call=dict(CALL), components=["unet"], output=bundle)  # fmt: skip
    report = qdx.verify(bundle, model=model)
    gate = next(gate for gate in report.gates if gate.name == "unet.forward.lowering.sqnr_db")

    assert read_recipe(bundle / "unet").find(TakeGiven) is not None
    assert gate.ok, str(report)
