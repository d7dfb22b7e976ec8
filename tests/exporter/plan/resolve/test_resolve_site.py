"""What a plan means for single operations: which rule decides which part, and what the target makes of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

import pytest

from qdx.exporter.errors import InvalidPlan, TargetRefusal
from qdx.exporter.plan import Choices, Inputs, examine, parse_plan, resolve
from qdx.exporter.plan.resolve.feasibility import Offer
from qdx.exporter.plan.resolve.resolve import Examination
from qdx.targets import load_target
from tests.support.plans import CHOICES, INT8, SITES, UNET, plan_of, site

W8A8 = {
    "select": {"component": "unet", "op": ["conv2d", "linear"]},
    "weights": INT8,
    "inputs": INT8,
}


@dataclass
class Toaster:
    """A target that computes everything, and notes what it was asked."""

    name: str = "toaster"
    storage_dtypes: tuple[str, ...] = ("float32", "float16")
    compute_dtype: str = "float32"
    refused: dict[str, str] = field(default_factory=dict)
    refused_options: dict[str, str] = field(default_factory=dict)
    choices: Choices = CHOICES
    quantizers: tuple[str, ...] = ("qdx",)
    forms: dict[str, str] = field(default_factory=dict)
    asked: list = field(default_factory=list)

    def offer(self, request):
        self.asked.append(request)
        dtype = request.inputs.dtype if request.inputs else "float32"
        return Offer(self.forms.get(dtype, "native"), "toasted")


def resolved(*rules, sites=SITES, target=None, **extras):
    return resolve(
        plan_of(*rules, **extras), ["unet", "vae", "text_encoder"], target or Toaster(), sites
    )


def unet(*rules, **extras):
    """What becomes of the UNet's sites by key."""
    return {r.key: r for r in resolved(*rules, **extras).sites["unet.forward"]}


def refusal(*rules, **extras):
    with pytest.raises(InvalidPlan) as caught:
        resolved(*rules, **extras)
    return str(caught.value)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_way_out_of_a_refusal_is_the_float_type_of_the_component(dtype):
    """Any other would be refused in turn: a component has one."""

    def found(**asked):
        floats = {"select": {"component": "unet"}, "weights": {"dtype": dtype}}
        linear = {"select": {"component": "unet", "op": "linear"}, **asked}
        target = Toaster(forms={"int8": "refused"})
        return examine(plan_of(floats, linear), ["unet", "vae", "text_encoder"], target, SITES)

    assert f'such as `"keep": "{dtype}"`;' in found(inputs=INT8).hint
    assert not found(keep=dtype).refusals


def test_attention_is_in_8_bit_floats_with_both_products_or_not_at_all():
    def forms(*op):
        rule = {
            "select": {"component": "unet", "op": list(op)},
            "inputs": {"dtype": "float8_e4m3fn"},
        }
        found = examine(plan_of(rule), ["unet"], Toaster(), {"unet.forward": SITES["unet.forward"]})
        sites = found.resolved.sites["unet.forward"]
        return {r.key.rpartition(".")[2]: (r.form, r.why) for r in sites if r.segments}

    assert forms("qk", "pv") == dict.fromkeys(["qk", "pv"], ("native", "toasted"))
    ((form, why),) = forms("pv").values()
    assert form == "refused"
    assert "one kernel for both" in why


def test_a_skip_is_quantized_as_the_product_that_it_meets_or_not_at_all():
    conv = next(one for one in UNET if one.key == "down_blocks.0.conv")
    add = replace(site("down_blocks.0.add", "add", "residual"), weight=None, product=conv.node)
    skip = {"id": "skip", "select": {"component": "unet", "op": "add"}, "inputs": INT8}

    def found(**asked):
        rule = {"id": "conv", "select": {"component": "unet", "op": "conv2d"}, **asked}
        sites = {"unet.forward": (*UNET, add)}
        resolved = examine(plan_of(rule, skip), ["unet"], Toaster(), sites).resolved
        return resolved.site("unet.forward", add.key)

    assert found(weights=INT8, inputs=INT8).form == "native"
    for asked in (
        {"weights": INT8},
        {"weights": INT8, "inputs": {"dtype": "float8_e4m3fn"}},
        {"keep": "float32"},
    ):
        assert found(**asked).form == "refused"
        assert "is not one of int8" in found(**asked).why


def test_a_rule_decides_for_what_it_selects_and_the_rest_stays_float():
    found = unet(W8A8)

    assert {key for key, r in found.items() if r.form == "native"} == {
        "conv_in", "time_embedding.linear_1", "down_blocks.0.conv", "down_blocks.0.attn.to_q", "mid_block.ff", "conv_out"
    }  # fmt: skip
    norm, product = found["down_blocks.0.norm"], found["down_blocks.0.attn.qk"]
    assert (norm.form, norm.weights.dtype, norm.weights_rule, norm.asked_inputs) == (
        "float",
        "float32",
        "default",
        None,
    )
    assert (product.form, product.weights, product.weights_rule, product.inputs) == (
        "float",
        None,
        "",
        None,
    )
    assert norm.why == "stored in float32; computed in float32"


def test_later_rules_win_for_each_part():
    found = unet(
        W8A8,
        {"id": "ff", "select": {"role": "ff.*"}, "weights": {"dtype": "int4"}},
        {"id": "calm", "select": {"stage": "mid"}, "inputs": {"dtype": "float32"}},
        {"id": "ends", "select": {"role": ["first", "last"]}, "keep": "float32"},
    )

    ff, first, query = found["mid_block.ff"], found["conv_in"], found["down_blocks.0.attn.to_q"]
    assert (ff.weights.dtype, ff.weights_rule, ff.inputs, ff.inputs_rule) == (
        "int4",
        "ff",
        None,
        "calm",
    )
    assert (first.form, first.weights_rule, first.inputs_rule) == ("float", "ends", "ends")
    assert (query.weights.dtype, query.inputs.dtype, query.inputs_rule) == (
        "int8",
        "int8",
        "rules[0]",
    )


@pytest.mark.parametrize(
    ("select", "keys"),
    [
        ({"name": "down_blocks.*.to_q"}, {"down_blocks.0.attn.to_q"}),
        ({"name": "down_blocks*q*"}, {"down_blocks.0.attn.to_q"}),
        ({"name": "*.ff"}, {"mid_block.ff"}),
        ({"name": ["conv_??", "conv_out"]}, {"conv_in", "conv_out"}),
        ({"name": "CONV_IN*"}, None),
        ({"stage": "down.*", "op": "conv2d"}, {"down_blocks.0.conv"}),
        ({"role": "attn.?"}, {"down_blocks.0.attn.to_q"}),
    ],
)
def test_globs_select_by_whole_names_across_dots(select, keys):
    rule = {"select": {"component": "unet", **select}, "weights": INT8}
    if keys is None:
        assert "matches the name of no operation" in refusal(rule)
    else:
        assert keys == {key for key, r in unet(rule).items() if r.quantized_weights}


def test_a_second_call_of_a_module_has_a_key_of_its_own():
    twice = {"unet.forward": (site("emb"), site("emb#2"))}
    found = unet({"select": {"name": "emb#2"}, "inputs": INT8}, sites=twice)

    assert [r.inputs is not None for r in found.values()] == [False, True]


def test_products_of_attention_take_inputs_and_no_weights():
    found = unet({"select": {"component": "unet", "op": ["qk", "pv"]}, "inputs": INT8})

    assert found["down_blocks.0.attn.pv"].inputs == Inputs(dtype="int8")
    assert found["down_blocks.0.attn.pv"].weights is None


def test_float_storage_is_that_of_the_component():
    found = resolved({"weights": {"dtype": "float16"}}, W8A8)

    assert found.storage_dtype("unet") == "float16"
    assert found.site("unet.forward", "down_blocks.0.norm").weights.dtype == "float16"
    assert found.site("unet.forward", "conv_in").stored_dtype == "int8"
    assert found.site("vae.decode", "conv").why == "stored in float16; computed in float32"


def test_float_weights_of_two_types_in_a_component_are_refused():
    with pytest.raises(TargetRefusal) as caught:
        resolved(
            {"weights": {"dtype": "float16"}}, {"select": {"role": "first"}, "keep": "float32"}
        )

    assert str(caught.value).splitlines()[:2] == [
        "`toaster` cannot do what the plan asks for 1 operation",
        (
            "  `unet.conv_in`: weights in float32 in a component that stores its float weights as "
            "float16: float weights of a component have one type"
        ),
    ]


def test_a_shared_weight_is_stored_in_one_way():
    tied = {"unet.forward": (site("a", weight="w"), site("b", weight="w"))}
    with pytest.raises(
        TargetRefusal, match="shares its weight with a, for which default asks another scheme"
    ):
        resolved({"select": {"name": "b"}, "weights": INT8}, sites=tied)

    assert unet({"select": {"name": "?"}, "weights": INT8}, sites=tied)["b"].form == "native"


def test_all_that_a_target_refuses_is_named_with_what_was_asked():
    target = Toaster(forms={"int8": "refused"})
    with pytest.raises(TargetRefusal) as caught:
        resolved({"select": {"op": ["qk", "linear"]}, "inputs": INT8}, target=target)

    assert caught.value.exit_code == 3
    assert [r.site for r in caught.value.refusals] == [
        "unet.time_embedding.linear_1", "unet.down_blocks.0.attn.to_q", "unet.down_blocks.0.attn.qk", "unet.mid_block.ff"
    ]  # fmt: skip
    assert (
        caught.value.refusals[0].reason
        == "linear with float32 weights and int8 inputs (tensor): toasted"
    )
    assert "for 4 operations" in caught.value.message


def test_examining_returns_what_resolving_raises():
    target = Toaster(forms={"int8": "refused"})
    examination = examine(
        plan_of({"select": {"op": "qk"}, "inputs": INT8}), ["unet"], target, {"unet.forward": UNET}
    )

    assert isinstance(examination, Examination)
    assert [r.form for r in examination.resolved.sites["unet.forward"]].count("refused") == 1
    assert [r.site for r in examination.refusals] == ["unet.down_blocks.0.attn.qk"]


def test_a_method_that_is_not_forward_is_named():
    target = Toaster(forms={"int8": "refused"})
    with pytest.raises(TargetRefusal, match=r"`vae\.decode\.conv`"):
        resolved({"select": {"component": "vae", "op": "conv2d"}, "inputs": INT8}, target=target)


# Blocks


@pytest.mark.parametrize(
    ("block", "granularity"), [(32, "block"), (64, "channel"), (128, "channel")]
)
def test_a_block_that_holds_a_channel_is_one(block, granularity):
    scheme = {"dtype": "int4", "granularity": "block", "block": block}
    ff = unet({"select": {"role": "ff.in"}, "weights": scheme})["mid_block.ff"]

    assert (ff.asked_weights.block, ff.weights.granularity) == (block, granularity)
    assert ff.why == ("toasted" if granularity == "block" else "toasted; one block holds a channel")


@pytest.mark.parametrize(
    ("inputs", "asked", "block", "why"),
    [
        (96, 64, 32, "; blocks of 32, because 64 does not divide its 96 inputs"),
        (80, 64, 16, "; blocks of 16, because 64 does not divide its 80 inputs"),
        (128, 64, 64, ""),
    ],
)
def test_blocks_are_halved_until_they_divide(inputs, asked, block, why):
    scheme = {"dtype": "int4", "granularity": "block", "block": asked}
    sites = {"unet.forward": (site("a", shape=(64, inputs)),)}
    rule = {"select": {"op": "linear"}, "weights": scheme}
    found = unet(rule, sites=sites, target=load_target("openvino"))["a"]

    assert (found.form, found.asked_weights.block, found.weights.block) == ("native", asked, block)
    assert found.why == "matrix product with compressed weights" + why


def test_blocks_stay_blocks_where_the_target_has_no_channels_of_four_bits():
    scheme = {"dtype": "int4", "granularity": "block", "block": 128}
    rule = {"select": {"op": "linear"}, "weights": scheme}
    found = {
        inputs: unet(
            rule,
            sites={"unet.forward": (site("a", shape=(64, inputs)),)},
            target=load_target("tensorrt"),
        )["a"].weights.block
        for inputs in (32, 96, 128)
    }

    assert found == {32: 32, 96: 32, 128: 128}


@pytest.mark.parametrize(
    ("inputs", "block", "form", "why"),
    [
        (128, 64, "native", ""),
        (64, 32, "native", "; blocks of 32, because one of 64 holds a channel"),
        (32, 16, "native", "; blocks of 16, because 64 does not divide its 32 inputs"),
        (16, 16, "stored", "; blocks of 16, because 64 does not divide its 16 inputs"),
    ],
)
def test_a_block_that_holds_a_channel_is_halved_where_only_shorter_ones_are_faster(inputs, block, form, why):  # fmt: skip
    sites = {"unet.forward": (site("a", shape=(64, inputs)),)}
    rule = {"select": {"op": "linear"}, "weights": {"dtype": "int4", "block": 64}}
    found = unet(rule, sites=sites, target=load_target("rtx-ada"))["a"]

    assert (found.form, found.weights.block) == (form, block)
    assert found.why.endswith(why)
    assert ("; blocks" in found.why) == bool(why)


def test_blocks_that_never_divide_are_refused():
    scheme = {"dtype": "int4", "granularity": "block", "block": 32}
    rule = {"select": {"op": "linear"}, "weights": scheme}
    sites = {"unet.forward": (site("a", shape=(64, 37)),)}
    with pytest.raises(TargetRefusal, match="blocks of 32 do not divide its 37 inputs"):
        unet(rule, sites=sites, target=load_target("openvino"))

    assert unet(rule, sites=sites, target=load_target("onnxruntime"))["a"].form == "native"


# Palettes


def palette(shape, *, storage=None, **scheme):
    rules = [{"weights": {"dtype": storage}}] if storage else []
    rule = {"select": {"op": "linear"}, "weights": {"dtype": "palette4", **scheme}}
    sites = {"unet.forward": (site("a", shape=shape),)}
    return unet(*rules, rule, sites=sites)["a"]


@pytest.mark.parametrize(
    ("channels", "asked", "group", "why"),
    [
        (64, 16, 16, ""),
        (24, 16, 8, "; groups of 8, because 16 does not divide its 24 channels"),
        (37, 16, 1, "; groups of 1, because 16 does not divide its 37 channels"),
        (16, 16, None, "; one group holds all channels"),
        (4, 16, None, "; one group holds all channels"),
    ],
)
def test_groups_are_halved_until_they_divide(channels, asked, group, why):
    found = palette((channels, 8), granularity="grouped_channel", group=asked)

    assert (found.asked_weights.group, found.weights.group) == (asked, group)
    assert found.weights.granularity == ("grouped_channel" if group else "tensor")
    assert found.why == "toasted" + why


@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_values_of_a_palette_are_stored_like_the_floats_of_the_component(storage):
    found = palette((64, 8), storage=storage, granularity="tensor")

    assert (found.asked_weights.lut_dtype, found.weights.lut_dtype) == (None, storage)
    assert palette((64, 8), storage=storage, granularity="tensor", lut_dtype="int8").weights.lut_dtype == "int8"  # fmt: skip


def test_values_of_a_palette_in_another_float_type_are_refused():
    with pytest.raises(TargetRefusal, match="a palette of float32 values in a component that stores its float weights as float16"):  # fmt: skip
        palette((64, 8), storage="float16", granularity="tensor", lut_dtype="float32")


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("onnxruntime", "no operator of ONNX holds a weight as indices"),
        ("openvino", "no kernel of the runtime takes a weight as indices"),
    ],
)
@pytest.mark.parametrize("inputs", [{}, {"inputs": INT8}])
def test_palettes_are_refused_where_nothing_holds_them(target, why, inputs):
    rule = {"select": {"component": "unet", "op": ["conv2d", "linear"]}, "weights": {"dtype": "palette6", "granularity": "tensor"}, **inputs}  # fmt: skip
    with pytest.raises(TargetRefusal, match=rf"palette6 weights \(tensor, float32 values\).*{why}"):
        unet(rule, target=load_target(target))


# Timesteps

TEN = {"timestep_groups": 10}


def segments(*rules, **extras):
    found = unet(*rules, calibration=TEN, **extras)["mid_block.ff"]
    return [(g and (g.start, g.stop), i.dtype, i.observer) for g, i in found.segments]


def test_groups_divide_the_schedule():
    scheme = {"dtype": "int8", "timestep_groups": 5}

    assert segments({"select": {"op": "linear"}, "inputs": scheme}) == [
        ((n, n + 2), "int8", "minmax") for n in range(0, 10, 2)
    ]


def test_rules_of_timesteps_win_where_they_hold():
    rules = [
        {"select": {"op": "linear"}, "inputs": INT8},
        {"id": "late", "select": {"op": "linear", "timesteps": [0.7, 1]}, "inputs": {"dtype": "int4", "observer": "mse"}},
        {"id": "last", "select": {"op": "linear", "timesteps": [0.9, 1]}, "inputs": INT8},
    ]  # fmt: skip

    assert segments(*rules) == [
        ((0, 7), "int8", "minmax"), ((7, 9), "int4", "mse"), ((9, 10), "int8", "minmax")
    ]  # fmt: skip
    found = unet(*rules, calibration=TEN)["mid_block.ff"]
    assert found.inputs_rule == "rules[0], late, last"
    assert found.inputs_rules == (("rules[0]", tuple(range(7))), ("late", (7, 8)), ("last", (9,)))
    assert found.to_json()["inputs"][1]["groups"] == [7, 9]


def test_rules_are_told_in_their_order_in_the_plan_whatever_groups_they_decide_for():
    rules = [
        {"id": "all", "select": {"op": "linear"}, "inputs": INT8},
        {"id": "noisy", "select": {"op": "linear", "timesteps": [0, 0.3]}, "inputs": {"dtype": "int4"}},
    ]  # fmt: skip
    found = unet(*rules, calibration=TEN)["mid_block.ff"]

    assert found.inputs_rules == (("all", tuple(range(3, 10))), ("noisy", (0, 1, 2)))


def test_a_rule_of_all_timesteps_is_a_plain_one():
    assert segments({"select": {"op": "linear", "timesteps": [0, 1]}, "inputs": INT8}) == [
        (None, "int8", "minmax")
    ]


def test_the_least_form_of_several_counts():
    target = Toaster(forms={"int4": "simulated", "int8": "decomposed"})
    found = unet(
        {"select": {"op": "linear"}, "inputs": INT8},
        {"select": {"op": "linear", "timesteps": [0.5, 1]}, "inputs": {"dtype": "int4"}},
        target=target,
    )

    assert found["mid_block.ff"].form == "simulated"
    assert all(request.by_timestep for request in target.asked)


@pytest.mark.parametrize(
    "base",
    [
        None,
        {"dtype": "float32"},
        {"dtype": "uint8"},
        {"dtype": "int8", "symmetric": False},
        {"dtype": "int8", "granularity": "token", "mode": "dynamic"},
    ],
)
def test_other_kinds_of_inputs_at_some_timesteps_are_refused(base):
    rules = [{"select": {"op": "linear", "timesteps": [0.5, 1]}, "inputs": INT8}]
    if base is not None:
        rules.insert(0, {"select": {"op": "linear"}, "inputs": base})
    with pytest.raises(TargetRefusal, match="one graph has one kind of quantizer"):
        resolved(*rules)


# Rules that decide nothing


def test_a_rule_for_a_role_that_is_not_there_says_which_are():
    assert refusal({"select": {"role": "frist"}, "weights": INT8}) == (
        "`p.json:14:9`: `frist` matches the role of no operation\n\nhint: did you mean `first`?"
    )


def test_a_rule_for_a_stage_that_is_not_there_says_which_are():
    message = refusal({"select": {"stage": "encoder"}, "weights": INT8})

    assert message.endswith(
        "`encoder` matches the stage of no operation\n\nhint: there are `down.0`, `mid`"
    )


def test_a_rule_for_a_name_that_is_not_there_says_what_is_near():
    message = refusal({"select": {"name": "down_blocks.0.attn.to_k"}, "weights": INT8})

    assert "hint: did you mean `down_blocks.0.attn.to_q`" in message


def test_a_rule_whose_keys_never_meet_is_refused():
    message = refusal({"select": {"role": "first", "op": "linear"}, "weights": INT8})

    assert "no operation has all that is selected at once" in message


def test_a_rule_for_weights_of_what_has_none_is_refused():
    message = refusal({"select": {"op": ["qk", "pv"]}, "weights": INT8})

    assert "none of the 2 operations selected has weights" in message
    assert "`pv`, `qk`" in message


def test_a_rule_for_inputs_of_what_has_none_is_refused():
    message = refusal({"select": {"op": "group_norm"}, "inputs": INT8})

    assert "none of the 1 operations selected has inputs to quantize" in message


def test_a_rule_that_later_rules_cover_is_refused():
    message = refusal(
        {"select": {"component": "unet", "role": "first"}, "weights": INT8}, {"id": "all", **W8A8}
    )

    assert message.startswith(
        "`p.json:12:5`: unreachable: later rules decide all 1 operations that it selects: all"
    )


def test_a_rule_for_timesteps_that_later_rules_cover_is_refused():
    late = {"select": {"component": "unet", "op": "linear", "timesteps": [0.5, 1]}, "inputs": INT8}

    assert "unreachable" in refusal(late, {"id": "all", **W8A8})


def test_a_rule_for_a_component_that_was_not_traced_is_no_mistake():
    rule = {"select": {"component": "text_encoder", "role": "whatever"}, "weights": INT8}

    assert resolved(rule)


def test_a_rule_may_decide_in_a_component_that_was_not_traced():
    rules = [
        {"select": {"op": "linear"}, "weights": INT8},
        {"select": {"component": "unet", "op": "*"}, "keep": "float32"},
    ]

    assert resolved(*rules)
    with pytest.raises(InvalidPlan, match="unreachable"):
        resolve(plan_of(*rules), ["unet", "vae"], Toaster(), SITES)


def test_a_rule_for_a_component_that_is_not_there_is_one():
    assert "`unnet` matches no component" in refusal(
        {"select": {"component": "unnet", "op": "linear"}, "weights": INT8}
    )


def test_without_traced_graphs_rules_of_operations_are_no_mistake():
    found = resolved(W8A8, {"select": {"role": "frist"}, "keep": "float32"}, sites=None)

    assert found.storage_dtype("unet") == "float32"
    assert dict(found.sites) == {}


# NNCF

NNCF = {"quantizer": "nncf", "nncf": {"mode": "ptq", "components": "unet*"}}


def test_nncf_is_refused_where_a_target_does_not_take_it():
    with pytest.raises(TargetRefusal, match="quantizer `nncf` makes no artifacts for `toaster`"):
        resolved({"keep": "float32"}, **NNCF)


def test_nncf_names_components_that_are_there():
    openvino = load_target("openvino")

    assert resolved({"keep": "float16"}, target=openvino, **NNCF).storage_dtype("unet") == "float16"
    settings = {"mode": "ptq", "components": "dit"}
    assert "`dit` matches no component" in refusal(
        {"keep": "float32"}, target=openvino, quantizer="nncf", nncf=settings
    )


# Cost


def test_a_plan_of_a_thousand_names_is_resolved_at_once():
    sites = {"unet.forward": tuple(site(f"blocks.{n}.linear") for n in range(1000))}
    rules = [{"select": {"name": f"blocks.{n}.*"}, "weights": INT8} for n in range(1000)]
    begin = time.perf_counter()
    found = resolved(*rules, sites=sites)

    assert time.perf_counter() - begin < 10
    assert {r.weights_rule for r in found.sites["unet.forward"]} == {
        f"rules[{n}]" for n in range(1000)
    }


def test_a_glob_of_many_stars_is_matched_at_once():
    sites = {"unet.forward": tuple(site("a" * 250 + str(n)) for n in range(100))}
    begin = time.perf_counter()

    assert "matches the name of no operation" in refusal(
        {"select": {"name": "*a" * 60 + "b"}, "weights": INT8}, sites=sites
    )
    assert time.perf_counter() - begin < 2


def test_a_resolution_as_json_holds_every_default():
    ff = unet(W8A8)["mid_block.ff"]

    assert ff.to_json()["weights"] == {
        "dtype": "int8", "granularity": "channel", "symmetric": True, "observer": "minmax",
        "range_factor": 1.0, "rounding": "nearest", "reduce_range": False,
    }  # fmt: skip
    assert ff.to_json()["where"] == "unet.forward"


def test_resolving_reads_the_places_of_the_text():
    plan = parse_plan('{"schema": "qdx.plan/1",\n "rules": [{"select": {"op": "conv3d"}, "keep": "float32"}],\n'
                      ' "gates": {"component": {"sqnr_db_min": 1}, "pipeline": {"psnr_db_min": 1, "ssim_min": 0}}}',
                      source="w.json")  # fmt: skip
    with pytest.raises(
        InvalidPlan, match=r"`w\.json:2:24`: `conv3d` matches the op of no operation"
    ):
        resolve(plan, ["unet", "vae"], Toaster(), SITES)


@pytest.mark.parametrize(
    ("select", "rank", "words"),
    [
        ({"op": "embedding"}, 1, "a low-rank branch stands beside linear, conv1d"),
        ({"op": "linear"}, 1024, "its rank is at most"),
    ],
)
def test_a_low_rank_branch_that_cannot_be_is_refused(select, rank, words):
    rule = {"select": select, "weights": {"dtype": "int8", "low_rank": {"rank": rank}}}
    wanted = SITES | {"unet.forward": (*SITES["unet.forward"], site("words", "embedding"))}
    with pytest.raises(TargetRefusal, match=words):
        resolve(plan_of(rule), ["unet", "vae"], Toaster(), wanted)


@pytest.mark.parametrize(
    ("select", "rotate", "words"),
    [
        ({"op": "embedding"}, {}, "a rotation stands in front of linear, conv1d"),
        ({"op": "linear"}, {"block": 128}, "the largest block that does is 64"),
        ({"name": "odd"}, {}, "the largest power of two that divides them is 2"),
    ],
)
def test_a_rotation_that_cannot_be_is_refused(select, rotate, words):
    rule = {"select": select, "weights": {"dtype": "int8", "rotate": rotate}}
    more = (site("words", "embedding"), site("odd", shape=(64, 6)))
    wanted = SITES | {"unet.forward": (*SITES["unet.forward"], *more)}
    with pytest.raises(TargetRefusal, match=words):
        resolve(plan_of(rule), ["unet", "vae"], Toaster(), wanted)


def test_sites_keep_what_the_graph_says():
    assert unet(W8A8)["conv_in"].site == UNET[0] == replace(UNET[0])
