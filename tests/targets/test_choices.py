"""What targets choose of all that plans leave unsaid: complete, with reasons, and what their own kernels carry out."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from qdx.exporter.errors import InvalidTarget, TargetRefusal
from qdx.exporter.plan import Choices, resolve
from qdx.targets import TargetProfile, list_targets, load_target
from qdx.targets.profile import parse_target
from tests.support.plans import CHOICES, SITES, plan_of, site

TARGETS = list_targets()
INT8 = {"dtype": "int8"}
UNSAID = {"component": {}, "pipeline": {"psnr_db_min": 20, "ssim_min": 0.7}}


def choices(**changes):
    return {**CHOICES.model_dump(mode="json", exclude_none=True), **changes}


def one(target, weights, inputs=None, op="linear", **more):
    """What becomes of one operation of a target."""
    rule = {"weights": weights, **({"inputs": inputs} if inputs else {}), **more}
    sites = {"unet.forward": (site("a", op, shape=(128, 256)),)}
    plan = plan_of({"select": {"op": op}, **rule})
    return resolve(plan, ["unet"], load_target(target), sites).site("unet.forward", "a")


@pytest.mark.parametrize("table", ["weights", "inputs", "gates"])
def test_rows_that_hold_for_everything_say_all_values(table):
    rows = choices()[table]
    for key in [key for key in rows[0] if key != "why"]:
        less = [{k: v for k, v in rows[0].items() if k != key}]
        with pytest.raises(ValidationError, match=f"no row that holds for everything says `{key}`"):
            Choices.model_validate(choices(**{table: less}))
        narrow = {"op": ["add"]} if table != "gates" else {"inputs": ["int8"]}
        with pytest.raises(ValidationError, match="no row that holds for everything"):
            Choices.model_validate(choices(**{table: [*less, {**rows[0], **narrow}]}))


@pytest.mark.parametrize(
    "change",
    [
        {"float_dtype": {"value": "int8", "why": "x"}},
        {"float_dtype": {"value": "float16"}},
        {"mixed_precision": {"value": 1, "why": "x"}},
        {"weights": [{"granularity": "row", "symmetric": True, "why": "x"}]},
        {"inputs": [{"symmetric": True, "when": "sometimes", "why": "x"}]},
        {"unknown": {"value": True, "why": "x"}},
    ],
)
def test_what_is_no_choice_is_refused(change):
    with pytest.raises(ValidationError):
        Choices.model_validate(choices(**change))


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_stores_the_float_type_that_it_chooses(name):
    profile = load_target(name)

    assert profile.choices.float_dtype.value in profile.storage_dtypes
    assert not (profile.choices.mixed_precision.value and profile.refused_options)


@pytest.mark.parametrize("name", TARGETS)
def test_where_kernels_take_blocks_or_groups_there_is_a_size(name):
    profile = load_target(name)
    carried = {
        g for k in profile.kernels if k.form != "refused" for g in k.weight_granularity or ()
    }
    general = [row for row in profile.choices.weights if row.op is row.dtype is row.inputs is None]

    assert "block" not in carried or any(row.block for row in general)
    assert "grouped_channel" not in carried or any(row.group for row in general)


@pytest.mark.parametrize(
    ("target", "symmetric", "block", "floats"),
    [
        ("onnxruntime", False, 32, "float32"),
        ("openvino", False, 32, "float32"),
        ("coreml", False, 32, "float16"),
        ("tensorrt", True, 64, "float16"),
    ],
)
def test_what_the_targets_choose(target, symmetric, block, floats):
    eight, four = one(target, INT8, INT8), one(target, {"dtype": "int4"})

    assert (eight.weights.granularity, eight.weights.symmetric) == ("channel", True)
    assert eight.inputs.symmetric == symmetric
    assert {c.by for c in eight.chosen} == {target}
    assert (four.weights.granularity, four.weights.block) == ("block", block)
    plan = plan_of({"weights": {"dtype": "float"}})
    assert resolve(plan, ["unet"], load_target(target)).storage_dtype("unet") == floats


@pytest.mark.parametrize("target", ["onnxruntime", "openvino", "coreml", "tensorrt"])
@pytest.mark.parametrize("symmetric", [False, True])
def test_what_a_plan_says_is_obeyed_or_refused(target, symmetric):
    def asked():
        return one(target, INT8, {**INT8, "symmetric": symmetric}, id="mine", why="I want it")

    if target == "tensorrt" and not symmetric:
        with pytest.raises(TargetRefusal, match="TensorRT has no zero points"):
            asked()
        return
    found = asked()
    assert found.inputs.symmetric == symmetric
    said = {c.name: c for c in found.chosen}["inputs.symmetric"]
    assert (said.value, said.by, said.why) == (symmetric, "mine", "I want it")


@pytest.mark.parametrize("target", ["openvino", "coreml", "mac-gpu", "tensorrt"])
def test_blocks_that_nobody_asked_for_give_way_to_channels_where_none_divides(target):
    def found(weights):
        sites = {"unet.forward": (site("a", shape=(64, 56)),)}
        plan = plan_of({"select": {"op": "linear"}, "weights": weights})
        return resolve(plan, ["unet"], load_target(target), sites).site("unet.forward", "a")

    with pytest.raises(TargetRefusal, match="blocks of 32 do not divide its 56 inputs"):
        found({"dtype": "int4", "block": 32})
    if target == "tensorrt":
        with pytest.raises(TargetRefusal, match="blocks of 64 do not divide"):
            found({"dtype": "int4"})
        return
    assert found({"dtype": "int4"}).weights.granularity == "channel"
    assert found({"dtype": "int4"}).why.endswith("because no block divides its 56 inputs")


def test_what_types_imply_nobody_chooses():
    fp8 = {"dtype": "float8_e4m3fn"}
    by = {c.name: c.by for c in one("tensorrt", fp8, fp8).chosen}
    assert (by["weights.symmetric"], by["inputs.symmetric"]) == ("float8_e4m3fn", "float8_e4m3fn")
    token = {"dtype": "int8", "granularity": "token", "mode": "dynamic"}
    assert one("onnxruntime", INT8, token).inputs.symmetric
    grouped = {"dtype": "int8", "timestep_groups": 2}
    assert all(part.symmetric for _, part in one("onnxruntime", INT8, grouped).segments)
    assert one("openvino", {"dtype": "int4", "block": 64}).weights.granularity == "block"


@pytest.mark.parametrize(("when", "form"), [(None, "float"), ("always", "native")])
def test_attention_is_quantized_where_a_target_says_never_only_if_it_is_told_to(when, form):
    rule = {"select": {"op": ["qk", "pv"]}, "inputs": INT8, **({"when": when} if when else {})}
    found = resolve(plan_of(rule), ["unet", "vae"], load_target("tensorrt"), SITES)
    product = found.site("unet.forward", "down_blocks.0.attn.qk")

    assert product.form == form
    assert ("tensorrt leaves it float: 8-bit products break" in product.why) == (when is None)


@pytest.mark.parametrize("name", TARGETS)
def test_choices_survive_a_copy_that_writes_every_key(name):
    profile = load_target(name)

    assert TargetProfile.model_validate(profile.model_dump(mode="json", by_alias=True)) == profile


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_rule_for_some_timesteps_fits_one_that_leaves_its_zero_point_to_the_target(name):
    rules = [
        {"select": {"op": "linear"}, "weights": INT8, "inputs": INT8},
        {"select": {"op": "linear", "timesteps": [0, 0.3]}, "inputs": {**INT8, "observer": "mse"}},
    ]
    found = resolve(plan_of(*rules), ["unet"], load_target(name), {"unet.forward": (site("a"),)})

    assert [scheme.symmetric for _, scheme in found.site("unet.forward", "a").segments] == [
        True
    ] * 2


@pytest.mark.parametrize("name", ["onnxruntime", "coreml", "tensorrt"])
def test_the_float_type_of_a_target_has_the_bound_of_that_type(name):
    target = load_target(name)
    said = plan_of({"weights": {"dtype": target.choices.float_dtype.value}}, gates=UNSAID)
    unsaid = plan_of({"weights": {"dtype": "float"}}, gates=UNSAID)

    one, other = (resolve(plan, ["unet"], target).gates for plan in (said, unsaid))
    assert one == other
    assert one.component.sqnr_db_min >= 50


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"float_dtype": {"value": "bfloat16", "why": "x"}}, "is not in `storage_dtypes`"),
        ({"mixed_precision": {"value": True, "why": "x"}}, "`refused_options` refuses it"),
    ],
)
def test_a_target_chooses_nothing_that_it_refuses(choices, message):
    data = load_target("tensorrt").to_json()

    with pytest.raises(ValidationError, match=message):
        TargetProfile.model_validate({**data, "choices": {**data["choices"], **choices}})


def test_another_value_does_not_take_over_the_reason_of_the_first():
    text = 'extends = "coreml"\nname = "mine"\n[choices]\nfloat_dtype = { value = "float32" }\n'

    with pytest.raises(InvalidTarget, match="key `why` is missing"):
        parse_target(text, source="mine.toml")
