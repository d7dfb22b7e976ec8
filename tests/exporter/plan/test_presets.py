"""The plans that come with qdx: what they ask, and that it can be had."""

from __future__ import annotations

import pytest

from qdx.exporter.calibrate.observed import observed_steps
from qdx.exporter.errors import TargetRefusal
from qdx.exporter.plan import list_presets, load_plan, resolve
from qdx.exporter.plan.resolve.settle import settled_gates
from qdx.exporter.plan.resolve.totals import totals_of
from qdx.exporter.plan.schema.load import preset_text
from qdx.exporter.plan.schema.settings import CALIBRATION_STEPS_MOST, Calibration
from qdx.targets import list_targets, load_target
from tests.support.plans import KINDS, SITES, site

FLOAT = ("bfloat16", "float16", "float32")
PRESETS = list_presets()
TARGETS = list_targets()
COREML = [name for name in TARGETS if load_target(name).runtime == "coreml"]
CPUS = ["onnxruntime", "openvino"]
NVIDIA = [name for name in TARGETS if load_target(name).runtime.startswith("tensorrt")]
DEQUANTIZE_INSIDE = (*CPUS, "tensorrt-rtx", "rtx-ampere", "rtx-ada", "rtx-blackwell")
"""Targets whose linear operations read 8-bit weights by themselves."""
EIGHT_BITS = [name for name in TARGETS if name not in {"coreml-ios16", "mac-gpu"}]
BLOCKS = {"coreml": 32, "mac-gpu": 32, "onnxruntime": 32, "openvino": 32, "tensorrt": 64}
TRANSFORMER = {
    "transformer.forward": (
        site("x_embedder", role="first"),
        site("time_embed.linear_1", role="time_embed", macs=1),
        site("blocks.0.attn.to_q", role="attn.q", macs=9000),
        site("proj_out", role="last", shape=(16, 64)),
    ),
    "text_encoder.forward": (site("layers.0.q"),),
    "vae.decode": (site("conv", "conv3d", shape=(8, 8, 3, 3, 3)),),
}


def resolved(preset, target, sites):
    components = dict.fromkeys(where.split(".")[0] for where in sites)
    return resolve(load_plan(preset), components, load_target(target), sites, KINDS)


def test_presets_are_listed():
    assert list_presets() == (
        "bfloat16", "float16", "float32", "fp8", "mxfp8", "nvfp4", "palette4", "palette6", "w4", "w8", "w8a8",
    )  # fmt: skip


@pytest.mark.parametrize("name", list_presets())
def test_each_is_named_like_its_file_and_says_what_it_is_for(name):
    plan = load_plan(name)

    assert name == plan.name
    assert plan.description
    assert all(rule.why for rule in plan.rules) or name in FLOAT


@pytest.mark.parametrize("name", list_presets())
def test_presets_calibrate_with_the_defaults(name):
    assert load_plan(name).calibration == Calibration()


def test_the_default_calibration_is_a_hundred_calls_and_observes_half_of_them():
    samples, share = Calibration().samples, Calibration().observed
    observed = observed_steps(CALIBRATION_STEPS_MOST, samples, share)
    assert samples * CALIBRATION_STEPS_MOST == 100
    assert sum(len(steps) for steps in observed) == 50


@pytest.mark.parametrize("name", FLOAT)
def test_float_presets_ask_one_type(name):
    assert [name] == [rule.weights.dtype for rule in load_plan(name).rules]
    assert not load_plan(name).quantizes


@pytest.mark.parametrize("name", [name for name in PRESETS if name not in FLOAT])
def test_no_preset_names_a_component_or_the_way_of_one_target(name):
    for rule in load_plan(name).rules:
        assert rule.select.component == ("*",)
        said = set() if rule.weights is None else rule.weights.model_fields_set
        # How blocks get their scales, and what stands beside four bits, no target chooses.
        assert said <= {"dtype"} or rule.weights.dtype == "nvfp4" == name
        asked = set() if rule.inputs is None else rule.inputs.model_fields_set
        assert asked <= {"dtype", "observer"} or rule.inputs.dtype in {"nvfp4", "mxfp8"}
        assert rule.when is None


GATES = {
    "float32": (80, 40, 0.98, None),
    "float16": (50, 40, 0.98, None),
    "bfloat16": (32, 30, 0.95, None),
    "w8": (25, 20, 0.7, 45),
    "w4": (10, 12, 0.4, 45),
    "w8a8": (25, 20, 0.7, 45),
    "fp8": (15, 20, 0.7, 45),
    "mxfp8": (15, 20, 0.7, 45),
    "nvfp4": (8, 12, 0.4, 45),
    "palette6": (15, 15, 0.5, 45),
    "palette4": (8, 10, 0.3, 45),
}
OTHER_GATES = {
    **{(target, name): (*GATES[name][:3], 60) for target in CPUS for name in ("w8", "w4")},
    **{(target, "w8a8"): (25, 20, 0.7, 35) for target in COREML},
    **{(target, "w8a8"): (20, 20, 0.7, 45) for target in NVIDIA},
    ("mac-gpu", "float16"): (55, 40, 0.98, None),
}  # fmt: skip
"""Bounds that targets choose otherwise, by target and preset."""


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", PRESETS)
def test_gates_of_the_presets_are_the_specified_ones(name, target):
    gates, chosen = settled_gates(load_plan(name), load_target(target))

    lowering = gates.lowering and gates.lowering.sqnr_db_min
    assert OTHER_GATES.get((target, name), GATES[name]) == (
        gates.component.sqnr_db_min,
        gates.pipeline.psnr_db_min,
        gates.pipeline.ssim_min,
        lowering,
    )
    assert all(one.why for one in chosen if one.by == target)


def test_w8a8_carries_the_gates_of_low_precision():
    gates = load_plan("w8a8").gates

    assert gates.audit.executed_share_min == 0.95
    assert (gates.conditioning.ratio_min, gates.conditioning.ratio_max) == (0.9, 1.1)
    assert (gates.coverage.timesteps_share_min, gates.coverage.branches) == (1, "both")


REFUSED = {
    ("coreml", "bfloat16"): "no bfloat16",
    **{(target, "w4"): "from iOS 18" for target in ("coreml-ios16", "coreml-ios17", "iphone-a16")},
    ("coreml-ios16", "w8a8"): "from iOS 17",
    **{(target, "bfloat16"): "compute capability 8.0" for target in ("tensorrt", "rtx-turing")},
    **{(target, "fp8"): "compute capability 8.9" for target in ("tensorrt-ampere", "jetson-orin", "tensorrt-rtx", "rtx-turing", "rtx-ampere")},
    ("rtx-turing", "w4"): "compute capability 8.0",
    ("rtx-turing", "float32"): "no matrix product in float32 for Turing",
    ("rtx-blackwell", "mxfp8"): "no kernel for mxfp8",
    **{(runtime, "fp8"): "no kernel|needs|float8" for runtime in ("onnxruntime", "openvino", "coreml")},
    **{(runtime, name): "tensorrt-blackwell" for runtime in ("onnxruntime", "openvino", "coreml") for name in ("mxfp8", "nvfp4")},
    **{(target, name): "blackwell|8.9" for target in NVIDIA for name in ("mxfp8", "nvfp4") if target not in {"tensorrt-blackwell", "rtx-blackwell"}},
    **{(runtime, f"palette{bits}"): "as indices into a table" for runtime in ("onnxruntime", "openvino", "tensorrt", "tensorrt-rtx") for bits in (4, 6)},
}  # fmt: skip
"""By runtime or target and preset, with the reason."""
HAD = {
    *((name, "bfloat16") for name in TARGETS if "bfloat16" in load_target(name).storage_dtypes),
    *(("tensorrt-blackwell", name) for name in ("mxfp8", "nvfp4")),
    ("rtx-ada", "fp8"),
    ("rtx-blackwell", "fp8"),
    ("rtx-blackwell", "nvfp4"),
}
"""What a target has though others of its runtime have not."""


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", list_presets())
@pytest.mark.parametrize("sites", [SITES, TRANSFORMER], ids=["unet", "transformer"])
def test_every_preset_can_be_had_or_is_refused_with_the_reason(name, target, sites):
    reason = REFUSED.get((target, name))
    if reason is None and (target, name) not in HAD:
        reason = REFUSED.get((load_target(target).runtime, name))
    if reason is None:
        assert resolved(name, target, sites)
        return
    with pytest.raises(TargetRefusal, match=reason):
        resolved(name, target, sites)


def test_mixed_precision_is_told_site_by_site():
    shortcut = site("up.conv_shortcut", "conv2d", "shortcut", shape=(64, 128, 1, 1))
    sites = {"unet.forward": (*SITES["unet.forward"], shortcut)}
    found = {r.key: r.why for r in resolved("float16", "mac-gpu", sites).sites["unet.forward"]}

    assert found["down_blocks.0.conv"] == "stored in float16; computed in float16"
    assert found["up.conv_shortcut"].endswith("computed in float32")


@pytest.mark.parametrize("target", COREML)
@pytest.mark.parametrize("sites", [SITES, TRANSFORMER], ids=["unet", "transformer"])
def test_palettes_leave_the_autoencoder_float(target, sites):
    for name, dtypes in (("palette6", {"palette6"}), ("palette4", {"palette6", "palette4"})):
        found = resolved(name, target, sites).sites
        stored = {r.weights.dtype for where, graph in found.items() for r in graph if r.quantized_weights}  # fmt: skip

        assert stored == dtypes
        assert {r.weights.dtype for r in found["vae.decode"]} == {"float16"}


@pytest.mark.parametrize("target", COREML)
def test_palette4_takes_four_bits_but_for_the_ends(target):
    whole = resolved("palette4", target, SITES)
    found = {r.key: r.weights.dtype for r in whole.sites["unet.forward"] if r.weights}

    assert found == {
        "conv_in": "palette6",
        "time_embedding.linear_1": "palette6",
        "down_blocks.0.norm": "float16",
        "down_blocks.0.conv": "palette4",
        "down_blocks.0.attn.to_q": "palette4",
        "mid_block.ff": "palette4",
        "conv_out": "palette6",
    }


@pytest.mark.parametrize("target", [name for name in EIGHT_BITS if name != "rtx-turing"])
def test_w8a8_computes_nearly_all_of_the_denoiser_in_low_precision(target):
    sites = resolved("w8a8", target, SITES).sites["unet.forward"]
    weighted = [r for r in sites if r.site.weight]

    assert totals_of(weighted).low_precision_share > 0.9
    assert {r.form for r in weighted} - {"stored"} == {"native", "float"}
    float_roles = {r.site.role for r in weighted if r.form == "float"}
    assert float_roles == {"first", "last", "norm"}
    inputs = next(r.inputs for r in weighted if r.inputs is not None)
    symmetric = target in NVIDIA
    assert (inputs.dtype, inputs.symmetric, inputs.observer) == ("int8", symmetric, "mse")


def test_w8a8_rounds_no_inputs_of_convolutions_for_turing_which_has_no_8_bit_convolution():
    whole = resolved("w8a8", "rtx-turing", SITES)
    convolution = whole.site("unet.forward", "down_blocks.0.conv")
    linear = whole.site("unet.forward", "mid_block.ff")

    assert (convolution.form, convolution.inputs, convolution.weights.dtype) == (
        "stored",
        None,
        "int8",
    )
    assert "there is no 8-bit convolution for Turing" in {
        c.why.partition(",")[0] for c in convolution.chosen
    }
    assert (linear.form, linear.inputs.dtype) == ("native", "int8")


@pytest.mark.parametrize("target", EIGHT_BITS)
def test_w8a8_keeps_the_inputs_of_shortcuts_and_of_the_timestep_float(target):
    sites = {
        "unet.forward": (
            *SITES["unet.forward"],
            site("up.conv_shortcut", "conv2d", "shortcut", shape=(64, 128, 1, 1)),
        )
    }
    found = {r.key: r for r in resolved("w8a8", target, sites).sites["unet.forward"]}

    assert (found["up.conv_shortcut"].form, found["up.conv_shortcut"].inputs) == ("float", None)
    time = found["time_embedding.linear_1"]
    stored = "native" if target in DEQUANTIZE_INSIDE else "stored"
    assert (time.form, time.inputs, time.weights.dtype) == (stored, None, "int8")


@pytest.mark.parametrize("target", EIGHT_BITS)
def test_w8a8_leaves_the_autoencoder_and_small_attention_float(target):
    whole = resolved("w8a8", target, SITES)

    assert [r.form for r in whole.sites["vae.decode"]] == ["float"]
    assert whole.site("unet.forward", "down_blocks.0.attn.qk").form == "float"


@pytest.mark.parametrize(
    ("target", "form"),
    [("onnxruntime", "float"), ("openvino", "native"), ("coreml", "float"), ("tensorrt", "float")],
)
def test_w8a8_takes_large_attention_where_it_is_faster(target, form):
    large = (*SITES["unet.forward"], *(site(f"a.{op}", op, macs=10**8) for op in ("qk", "pv")))
    found = resolved("w8a8", target, {"unet.forward": large})

    assert {found.site("unet.forward", f"a.{op}").form for op in ("qk", "pv")} == {form}
    assert found.site("unet.forward", "down_blocks.0.attn.qk").form == "float"


@pytest.mark.parametrize("target", EIGHT_BITS)
def test_w8a8_serves_denoisers_without_attention(target):
    sites = tuple(s for s in SITES["unet.forward"] if s.op not in {"qk", "pv"})

    assert resolved("w8a8", target, {"unet.forward": sites})


@pytest.mark.parametrize("target", BLOCKS)
def test_w4_takes_four_bits_for_linear_operations_only(target):
    whole = resolved("w4", target, SITES)
    found = {r.key: r.weights.dtype for r in whole.sites["unet.forward"] if r.weights}

    assert found == {
        "conv_in": "int8",
        "time_embedding.linear_1": "int8",
        "down_blocks.0.norm": load_target(target).choices.float_dtype.value,
        "down_blocks.0.conv": "int8",
        "down_blocks.0.attn.to_q": "int4",
        "mid_block.ff": "int4",
        "conv_out": "int8",
    }
    assert [r.weights.dtype for r in whole.sites["vae.decode"]] == ["int8"]
    wide = {"unet.forward": (*SITES["unet.forward"], site("wide", shape=(64, 640)))}
    assert resolved("w4", target, wide).site("unet.forward", "wide").weights.block == BLOCKS[target]


def test_w4_takes_a_scale_for_each_channel_where_blocks_do_not_run():
    found = resolved("w4", "iphone-a17", SITES).site("unet.forward", "mid_block.ff")

    assert (found.weights.dtype, found.weights.granularity) == ("int4", "channel")
    assert "one scale" in {c.name: c.why for c in found.chosen}["weights.granularity"]


def test_the_text_of_a_preset_is_the_plan():
    assert '"id": "w8a8"' in preset_text("w8a8")


def test_a_refused_preset_names_those_that_fit():
    with pytest.raises(TargetRefusal) as caught:
        resolved("fp8", "tensorrt-ampere", SITES)

    hint = caught.value.hint
    assert hint.startswith("presets that fit are ")
    names = hint.partition(";")[0]
    assert "`w8a8`" in names
    assert not [name for name in ("`fp8`", "`palette6`", "`float16`") if name in names]
