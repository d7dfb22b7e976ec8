"""What is learned reaches artifacts as it was learned: in the recipe, in the file, and again when it is verified."""

from __future__ import annotations

import pytest
import torch

from qdx.bundle.recipes import read_recipe, rebuilt
from qdx.cache.store import Store
from qdx.calibration.learning_calls import LearningCalls
from qdx.exporter.errors import InvalidBundle, InvalidPlan, TargetRefusal
from qdx.exporter.graph.ir.learned_codes import LearnedCodes
from qdx.exporter.plan.schema.load import plan_from_json
from qdx.exporter.transforms.rounding import RoundWeights
from qdx.source.pipeline import trace_pipeline
from qdx.tune import learner
from qdx.verification.verify import verify
from tests.support.quantizing import CALL, export, files, plan
from tests.support.smallest import build_smallest


def asking(method="gptq", weights=None, **options):
    weights = {"dtype": "int4", "rounding": method, **(weights or {})}
    value = plan({"weights": weights}, **options)
    value["gates"]["lowering"] = {"sqnr_db_min": 60}
    return value


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return build_smallest(tmp_path_factory.mktemp("learning") / "model")


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    return export(model, tmp_path_factory.mktemp("gptq"), asking()).bundle


def graphs_of(model, bundle):
    graph = trace_pipeline(model, dict(CALL)).graph("unet.forward")
    return graph, *rebuilt(graph, read_recipe(bundle / "unet"))


def test_the_stored_values_are_those_that_were_learned(model, exported):
    recipe = read_recipe(exported / "unet")
    _, floats, quantized = graphs_of(model, exported)
    rounding = recipe.find(RoundWeights)
    moved = 0
    for key, method in rounding.sites.items():
        name = f"{key}.weight"
        codes = LearnedCodes(rounding.learned[f"{key}.codes"], floats.weights[name].shape).read()
        stored = quantized.weights[name].read().to(torch.int32)
        scale = quantized.weights[f"{name}_scale"].read()
        shape = (-1, *[1] * (stored.dim() - 1))
        nearest = (floats.weights[name].read() / scale.reshape(shape)).round()
        moved += int((stored != nearest).sum())

        assert method == "gptq"
        assert torch.equal(stored, codes.to(torch.int32) - 8)
    assert moved > 50


def test_the_artifact_computes_with_them(model, exported):
    report = verify(exported, model=model)

    assert report.ok, str(report)


def test_codes_take_no_more_bytes_than_the_artifact_has_for_them(exported):
    rounding = read_recipe(exported / "unet").find(RoundWeights)
    elements = sum(one.numel() * 2 for one in rounding.learned.values())
    graph_bytes = sum(one.numel() for one in rounding.learned.values())

    assert graph_bytes <= elements / 2 + len(rounding.learned)


def test_columns_are_not_learned_by_blocks():
    def asked(rounding, **learning):
        value = asking(rounding, {"learning": learning})
        return plan_from_json(value, source="p.json").rules[0].asked_weights

    assert asked("adaround").by_blocks
    assert not asked("adaround", unit="layer").by_blocks
    assert not asked("gptq").by_blocks


@pytest.mark.slow
def test_workers_and_passes_change_no_byte(model, exported, tmp_path, monkeypatch):
    monkeypatch.setattr(learner.CallLearner.__init__, "__kwdefaults__", {
        **learner.CallLearner.__init__.__kwdefaults__, "limit_bytes": 3 * 72 * 72 * 4,
    })  # fmt: skip
    again = export(model, tmp_path, asking(), workers=2).bundle

    assert files(again / "unet") == files(exported / "unet")


@pytest.mark.slow
def test_what_was_learned_is_kept_for_other_targets(model, exported, tmp_path, monkeypatch):
    store = Store(tmp_path / "cache")
    first = export(model, tmp_path, asking(), cache=store).bundle

    def not_again(*arguments):
        raise AssertionError("it was recorded already")

    monkeypatch.setattr(LearningCalls, "record", not_again)
    other = export(model, tmp_path, asking(), "openvino", cache=store).bundle
    one, two = (read_recipe(each / "unet").find(RoundWeights) for each in (first, other))

    assert one.learned.keys() == two.learned.keys()
    assert all(torch.equal(one.learned[name], two.learned[name]) for name in one.learned)
    with pytest.raises(AssertionError, match="recorded already"):
        export(
            model, tmp_path, asking(weights={"learning": {"damping": 0.05}}), "coreml", cache=store
        )


@pytest.mark.slow
def test_a_part_that_is_solved_is_not_solved_again(model, exported, tmp_path, monkeypatch):
    store, solved, count = Store(tmp_path / "cache"), learner.solved, 0

    def some(*arguments):
        nonlocal count
        count += 1
        if count == 4:
            raise KeyboardInterrupt
        return solved(*arguments)

    monkeypatch.setattr(learner, "solved", some)
    with pytest.raises(KeyboardInterrupt):
        export(model, tmp_path, asking(), cache=store, workers=1)
    count = 100
    again = export(model, tmp_path, asking(), cache=store, workers=1).bundle
    sites = read_recipe(again / "unet").find(RoundWeights).sites

    assert count - 100 == len(sites) - 3
    assert files(again / "unet") == files(exported / "unet")


@pytest.mark.slow
def test_biases_are_corrected_by_the_error_that_it_makes(model, exported, tmp_path):
    corrected = export(model, tmp_path, asking(bias_correction=True)).bundle
    floats = graphs_of(model, exported)[2].weights["conv_in.bias"].read()
    moved = graphs_of(model, corrected)[2].weights["conv_in.bias"].read()

    assert read_recipe(corrected / "unet").find(RoundWeights).learned.keys() == read_recipe(exported / "unet").find(RoundWeights).learned.keys()  # fmt: skip
    assert not torch.equal(floats, moved)
    assert verify(corrected, model=model).ok


@pytest.mark.slow
def test_smoothed_weights_learn_from_smoothed_inputs(model, tmp_path):
    value = asking(smoothing={"alpha": 0.5})
    value["rules"][0]["inputs"] = {"dtype": "int8"}
    bundle = export(model, tmp_path, value).bundle

    assert verify(bundle, model=model).ok


@pytest.mark.slow
def test_layers_behind_a_table_of_the_time_embedding_learn_from_other_timesteps(model, tmp_path):
    value = asking(time_embedding="precompute")
    value["calibration"]["steps"] = 2
    bundle = export(model, tmp_path, value, call={"num_inference_steps": 5}).bundle

    assert verify(bundle, model=model).ok


@pytest.mark.slow
def test_sizes_that_stay_open_are_learned_at_the_calls_own(model, tmp_path):
    bundle = export(model, tmp_path, asking(), shapes="dynamic").bundle

    assert verify(bundle, model=model).ok


def test_codes_of_another_weight_are_refused(model, exported, tmp_path):
    from safetensors.torch import load_file, save_file

    source = exported / "unet"
    (tmp_path / "quantization.json").write_bytes((source / "quantization.json").read_bytes())
    tensors = load_file(source / "quantization.safetensors")
    name = "rounding.conv_in.codes"
    tensors[name] = tensors[name][1:].clone()
    save_file(tensors, tmp_path / "quantization.safetensors")
    graph = trace_pipeline(model, dict(CALL)).graph("unet.forward")
    with pytest.raises(InvalidBundle, match=r"codes .*expected uint8"):
        rebuilt(graph, read_recipe(tmp_path))


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({"rounding": "nearest", "learning": {}}, "`learning` with rounding `nearest`"),
        (
            {"rounding": "gptq", "learning": {"steps": 5}},
            "`steps` means nothing for rounding `gptq`",
        ),
        ({"rounding": "adaround", "learning": {"act_order": True}}, "`act_order` means nothing"),
        ({"rounding": "gptq", "learning": {"damping": 0}}, "damping"),
    ],
)
def test_what_contradicts_itself_is_refused(weights, words):
    with pytest.raises(InvalidPlan, match=words):
        plan_from_json(asking(weights=weights), source="p.json")


def test_operations_that_it_does_not_know_are_refused(tmp_path):
    from tests.support.smallest import build_smallest_text_to_image

    model = build_smallest_text_to_image(tmp_path / "model")
    value = asking(weights={"dtype": "int8"})
    value["rules"][0]["select"] = {"component": "text_encoder", "op": "embedding"}
    with pytest.raises(TargetRefusal, match="rounding gptq learns weights of conv1d"):
        export(model, tmp_path, value, call={"prompt": "a"})


@pytest.mark.slow
@pytest.mark.parametrize("method", ["gptq", "adaround"])
@pytest.mark.parametrize(
    ("target", "weights", "ops"),
    [
        ("onnxruntime", {}, ["conv2d", "linear"]),
        ("onnxruntime", {"granularity": "block", "block": 16}, ["linear"]),
        ("onnxruntime", {"dtype": "uint4", "symmetric": False}, ["conv2d", "linear"]),
        ("openvino", {}, ["conv2d", "linear"]),
        ("coreml", {}, ["conv2d", "linear"]),
        ("coreml", {"dtype": "palette4", "granularity": "tensor"}, ["conv2d", "linear"]),
        ("tensorrt", {"granularity": "block", "block": 16}, ["linear"]),
        ("tensorrt", {"dtype": "int8"}, ["conv2d", "linear"]),
    ],
    ids=lambda one: "-".join(map(str, one.values())) if isinstance(one, dict) else None,
)
def test_on_every_target(model, tmp_path, method, target, weights, ops):
    value = asking(method, weights)
    value["rules"][0]["select"]["op"] = ops
    value["gates"]["lowering"] = {}  # the target's own: some store all else in sixteen bits
    if "block" in weights:  # the other linear layer has eight inputs
        value["rules"][0]["select"]["name"] = "*linear_2"
    bundle = export(model, tmp_path, value, target).bundle
    (path,) = bundle.rglob("quantization.json")
    rounding = read_recipe(path.parent).find(RoundWeights)

    assert set(rounding.sites.values()) == {method}
    assert verify(bundle, model=model).ok
