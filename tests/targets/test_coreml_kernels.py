"""What Core ML stores and computes in low precision, by system and unit."""

from __future__ import annotations

import pytest

from qdx.exporter.plan.resolve.feasibility import Request
from qdx.exporter.plan.schema.scheme import Inputs, Weights
from qdx.targets import load_target

BITS = (1, 2, 3, 4, 6, 8)
W8, W4 = Weights(dtype="int8"), Weights(dtype="int4")
BLOCKS = Weights(dtype="int4", granularity="block", block=32)
U8 = Weights(dtype="uint8", symmetric=False)
F8 = Weights(dtype="float8_e4m3fn")
F16 = Weights(dtype="float16")
A8 = Inputs(dtype="int8")
ASYMMETRIC = Inputs(dtype="uint8", symmetric=False)
TOKEN = Inputs(dtype="int8", granularity="token", mode="dynamic")


def palette(bits=4, *, group=None, table="float16"):
    granularity = "grouped_channel" if group else "tensor"
    return Weights(dtype=f"palette{bits}", granularity=granularity, group=group, lut_dtype=table)


def offer(target, op, weights, inputs=None, **more):
    return load_target(target).offer(Request(op, weights, inputs, reduced=64, **more))


@pytest.mark.parametrize("op", ["conv1d", "conv2d", "conv3d", "linear"])
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("group", [None, 16])
@pytest.mark.parametrize("table", ["float16", "float32", "int8"])
def test_all_palettes_are_looked_up(op, bits, group, table):
    assert offer("coreml", op, palette(bits, group=group, table=table)).form == "native"


SINCE_18 = "from iOS 18 and macOS 15 on"
OLD = ("coreml-ios16", "coreml-ios17", "iphone-a16")
BLOCKS8 = Weights(dtype="int8", granularity="block", block=32)


@pytest.mark.parametrize("target", OLD)
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("table", ["float16", "float32"])
def test_systems_before_ios_18_have_one_table_of_no_3_bits(target, bits, table):
    found = offer(target, "conv2d", palette(bits, table=table))

    if bits == 3:
        assert (found.form, SINCE_18 in found.why) == ("refused", True)
    else:
        assert found.form == ("stored" if target == "coreml-ios16" else "native")


@pytest.mark.parametrize("target", OLD)
@pytest.mark.parametrize(
    "weights",
    [palette(4, group=16), palette(4, table="int8"), palette(8, group=1, table="int8"), W4, BLOCKS, BLOCKS8],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("inputs", [None, A8])
def test_what_came_with_ios_18_is_refused_before(target, weights, inputs):
    found = offer(target, "linear", weights, inputs)

    since = "from iOS 17 and macOS 14 on" if inputs and target == "coreml-ios16" else SINCE_18
    assert (found.form, since in found.why) == ("refused", True)


@pytest.mark.parametrize(
    ("target", "form"),
    [("coreml-ios16", "refused"), ("coreml-ios17", "native"), ("coreml", "native")],
)
@pytest.mark.parametrize("inputs", [A8, ASYMMETRIC])
def test_quantized_inputs_came_with_ios_17(target, form, inputs):
    assert offer(target, "conv2d", W8, inputs).form == form
    assert offer(target, "linear", W8, None).form == "stored"


@pytest.mark.parametrize("target", ["iphone-a16", "iphone-a17"])
@pytest.mark.parametrize("weights", [BLOCKS, BLOCKS8])
@pytest.mark.parametrize("op", ["linear", "conv2d"])
@pytest.mark.parametrize("inputs", [None, A8])
def test_the_neural_engine_takes_no_blocks(target, weights, op, inputs):
    assert offer(target, op, weights, inputs).form == "refused"


def test_the_neural_engine_s_reason_is_its_own():
    why = offer("iphone-a17", "linear", BLOCKS).why

    assert "one scale for a weight or for each output channel" in why


@pytest.mark.parametrize(
    ("weights", "inputs", "form"),
    [
        (BLOCKS, None, "native"),
        (palette(6), None, "stored"),
        (palette(4, group=16, table="int8"), None, "stored"),
        (W8, None, "stored"),
        (W8, A8, "simulated"),
        (palette(4, table="int8"), A8, "simulated"),
    ],
)
def test_the_gpu_multiplies_in_floats(weights, inputs, form):
    found = offer("mac-gpu", "linear", weights, inputs)

    assert (found.form, found.slower is None) == (form, form == "native")


def test_the_8_bit_path_takes_tables_of_int8():
    assert offer("iphone-a17", "conv2d", palette(4, table="int8"), A8).slower is None
    assert offer("iphone-a17", "conv2d", palette(4), A8).slower is not None


@pytest.mark.parametrize(
    ("op", "weights", "inputs", "expected"),
    [
        ("conv2d", W8, A8, "native"),
        ("linear", W8, ASYMMETRIC, "native"),
        ("linear", palette(4, table="int8"), A8, "native"),
        ("conv2d", palette(4, table="int8"), ASYMMETRIC, "native"),
        ("linear", palette(4), A8, "simulated"),
        ("linear", palette(4, group=16, table="int8"), A8, "simulated"),
        ("linear", U8, A8, "simulated"),
        ("linear", W4, A8, "simulated"),
        ("linear", BLOCKS, A8, "simulated"),
        ("linear", F16, A8, "simulated"),
        ("qk", None, A8, "simulated"),
        ("pv", None, ASYMMETRIC, "simulated"),
        ("conv1d", W8, A8, "refused"),
        ("linear", W8, TOKEN, "refused"),
        ("qk", None, TOKEN, "refused"),
        ("linear", W8, Inputs(dtype="int4"), "refused"),
        ("linear", W8, None, "stored"),
        ("conv2d", W8, None, "stored"),
        ("conv3d", W4, None, "stored"),
        ("linear", U8, None, "stored"),
        ("linear", BLOCKS, None, "stored"),
        ("conv2d", BLOCKS, None, "refused"),
        ("linear", F8, None, "refused"),
        ("group_norm", W8, None, "refused"),
        ("embedding", palette(), None, "refused"),
    ],
)
def test_forms(op, weights, inputs, expected):
    assert offer("coreml", op, weights, inputs).form == expected


@pytest.mark.parametrize("op", ["conv2d", "qk"])
def test_scales_by_timestep_are_refused(op):
    found = offer("coreml", op, W8 if op == "conv2d" else None, A8, by_timestep=True)

    assert (found.form, "none depends on the timestep" in found.why) == ("refused", True)


def test_scales_are_stored_like_float_weights():
    kernels = load_target("coreml").kernels

    assert all(k.scales == "storage" for k in kernels if k.form != "refused" and "none" not in (k.weights or ()))  # fmt: skip


@pytest.mark.parametrize("op", ["qk", "pv"])
def test_products_of_attention_gain_nothing(op):
    assert offer("coreml", op, None, A8).slower is not None
