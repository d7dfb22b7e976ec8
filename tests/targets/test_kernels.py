"""What targets run in low precision: the tables, and how they are read."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

import qdx.targets
from qdx.exporter.dtypes import number_type
from qdx.exporter.plan.resolve.feasibility import Request
from qdx.exporter.plan.schema.scheme import Inputs, Weights
from qdx.targets import TargetProfile, list_targets, load_target
from qdx.targets.kernels import Kernel, offer_of, reached

FOLDER = Path(qdx.targets.__file__).parent
W8, W4 = Weights(dtype="int8"), Weights(dtype="int4")
BLOCKS = Weights(dtype="int4", granularity="block", block=32)
A8 = Inputs(dtype="int8")
A4 = Inputs(dtype="int4")
TOKEN = Inputs(dtype="int8", granularity="token", mode="dynamic")
ASYMMETRIC = Inputs(dtype="uint8", symmetric=False)
U8 = Weights(dtype="uint8", symmetric=False)
F8 = Weights(dtype="float8_e4m3fn")
F32 = Weights(dtype="float32")
A_F8 = Inputs(dtype="float8_e4m3fn")
BLOCK_FLOATS = ("nvfp4", "mxfp8")


CPUS = ("onnxruntime", "openvino")
"""Targets that share most of what they do."""


def form(target, op, weights, inputs=None, **more):
    return load_target(target).offer(Request(op, weights, inputs, reduced=64, **more)).form


@pytest.mark.parametrize("target", CPUS)
@pytest.mark.parametrize(
    ("op", "weights", "inputs", "expected"),
    [
        ("conv2d", W8, A8, "native"),
        ("linear", W8, A8, "native"),
        ("linear", W8, ASYMMETRIC, "native"),
        ("qk", None, A8, "native"),
        ("pv", None, A8, "native"),
        ("linear", W8, A4, "simulated"),
        ("conv2d", W8, Inputs(dtype="int5"), "simulated"),
        ("conv2d", W8, Inputs(dtype="int3"), "simulated"),
        ("linear", W4, A8, "simulated"),
        ("linear", BLOCKS, A8, "simulated"),
        ("linear", F32, A8, "simulated"),
        ("linear", W8, TOKEN, "decomposed"),
        ("conv2d", W8, TOKEN, "refused"),
        ("conv2d", U8, TOKEN, "refused"),
        ("qk", None, TOKEN, "refused"),
        ("linear", W8, None, "native"),
        ("linear", W4, None, "native"),
        ("linear", BLOCKS, None, "native"),
        ("linear", U8, None, "native"),
        ("conv2d", W8, None, "stored"),
        ("conv3d", W8, None, "stored"),
        ("conv2d", BLOCKS, None, "refused"),
        ("linear", F8, None, "stored"),
        ("linear", F8, A8, "refused"),
        ("group_norm", W8, None, "refused"),
        ("embedding", W8, None, "refused"),
    ],
)
def test_forms_that_targets_share(target, op, weights, inputs, expected):
    assert form(target, op, weights, inputs) == expected


@pytest.mark.parametrize(
    ("op", "weights", "inputs", "onnxruntime", "openvino"),
    [
        ("conv2d", U8, A8, "native", "simulated"),
        ("linear", Weights(dtype="uint8"), A8, "native", "simulated"),
        ("qk", None, ASYMMETRIC, "native", "simulated"),
        ("pv", None, Inputs(dtype="uint8"), "native", "simulated"),
    ],
)
def test_forms_that_differ(op, weights, inputs, onnxruntime, openvino):
    assert form("onnxruntime", op, weights, inputs) == onnxruntime
    assert form("openvino", op, weights, inputs) == openvino


def test_tensorrt_has_scales_of_tokens_in_front_of_linear_layers_alone():
    for target in (
        one for one in list_targets() if load_target(one).runtime.startswith("tensorrt")
    ):
        assert form(target, "linear", W8, TOKEN) == "decomposed", target
        assert form(target, "linear", W4, TOKEN) == "refused", target
        assert form(target, "conv2d", W8, TOKEN) == "refused", target
        assert form(target, "qk", None, TOKEN) == "refused", target


@pytest.mark.parametrize("target", CPUS)
@pytest.mark.parametrize("op", ["conv2d", "linear", "qk"])
def test_groups_of_timesteps_are_decomposed(target, op):
    weights = None if op == "qk" else W8

    assert form(target, op, weights, A8, by_timestep=True) == "decomposed"
    assert form(target, op, weights, A4, by_timestep=True) == "simulated"


def test_blocks_that_do_not_divide():
    request = Request("linear", BLOCKS, None, reduced=40)

    assert load_target("onnxruntime").offer(request).form == "native"
    offer = load_target("openvino").offer(request)
    assert (offer.form, offer.why) == ("refused", "blocks of 32 do not divide its 40 inputs")


@pytest.mark.parametrize(
    ("op", "weights", "inputs", "why"),
    [
        ("conv2d", BLOCKS, None, "only matrix products read 4-bit weights"),
        ("linear", W4, None, "a scale for each block"),
        ("linear", BLOCKS, A8, "inputs in sixteen bits"),
        ("linear", Weights(dtype="uint8"), None, "have a sign"),
        ("linear", U8, None, "weights are symmetric"),
        ("linear", Weights(dtype="int8", granularity="block", block=32), None, "those of channels"),
        ("linear", W8, ASYMMETRIC, "inputs are symmetric"),
        ("conv2d", W8, TOKEN, "one for each tensor"),
        ("pv", None, Inputs(dtype="float8_e4m3fn"), "in a component of sixteen bits"),
        ("add", None, ASYMMETRIC, "inputs are symmetric"),
        ("linear", Weights(dtype="palette4", granularity="tensor"), None, "table"),
    ],
)
def test_what_tensorrt_cannot_do_is_refused_with_the_reason(op, weights, inputs, why):
    offer = load_target("tensorrt").offer(Request(op, weights, inputs, reduced=64))

    assert offer.form == "refused"
    assert why in offer.why


@pytest.mark.parametrize(
    ("head", "storage", "expected"),
    [
        (64, "float16", "native"),
        (256, "float16", "native"),
        (40, "float16", "refused"),
        (272, "float16", "refused"),
        (64, "float32", "refused"),
    ],
)
def test_fused_attention_in_8_bit_floats_has_wide_heads_and_sixteen_bits(head, storage, expected):
    request = Request("qk", None, Inputs(dtype="float8_e4m3fn"), head=head, storage=storage)

    assert load_target("tensorrt-ada").offer(request).form == expected
    assert load_target("tensorrt-ampere").offer(request).form == "refused"


RTX = ("tensorrt-rtx", "rtx-turing", "rtx-ampere", "rtx-ada", "rtx-blackwell")
K_BLOCK = Weights(dtype="int4", granularity="block", block=64)


@pytest.mark.parametrize(
    ("op", "weights", "inputs", "more", "forms"),
    [
        # in the order of RTX; `slower` where the offer says why it is no faster
        ("conv2d", W8, A8, {}, ("native", "simulated, slower", "native", "native", "native")),
        ("conv1d", W8, A8, {}, ("native", "simulated, slower", "native", "native", "native")),
        ("conv3d", W8, A8, {}, ("native", "simulated, slower", "native", "native", "native")),
        ("conv2d", W8, ASYMMETRIC, {}, ("refused",) * 5),
        ("conv3d", W8, TOKEN, {}, ("refused",) * 5),
        ("conv2d", W8, None, {}, ("stored, slower",) * 5),
        ("linear", W8, A8, {}, ("native",) * 5),
        ("linear", W8, None, {"storage": "float16"}, ("native", "stored, slower", "native", "native", "native")),
        ("linear", W8, None, {}, ("stored, slower", "stored, slower", "native", "native", "native")),
        ("linear", BLOCKS, None, {}, ("native", "refused", "native", "native", "native")),
        ("linear", K_BLOCK, None, {}, ("stored, slower", "refused", *["stored, slower"] * 3)),
        ("linear", F8, A_F8, {}, ("refused", "refused", "refused", "native", "native")),
        ("linear", F8, None, {}, ("refused", "refused", "refused", "native", "native")),
        ("conv1d", F8, A_F8, {"kernel": 32}, ("refused", "refused", "refused", "native", "native")),
        ("conv2d", F8, A_F8, {"kernel": 49}, ("refused", "refused", "refused", *["simulated, slower"] * 2)),
        ("conv2d", F8, None, {}, ("refused", "refused", "refused", *["stored, slower"] * 2)),
        ("add", None, A8, {}, ("simulated, slower",) * 5),
        ("qk", None, A8, {"head": 64, "keys": 384}, ("native",) * 5),
        ("qk", None, A8, {"head": 64, "keys": 385}, ("native", "native, slower", *["native"] * 3)),
        ("qk", None, A8, {"head": 32, "keys": 512}, ("native",) * 5),
        ("pv", None, A8, {"head": 32, "keys": 513}, ("native, slower",) * 5),
        ("pv", None, A8, {"head": 40, "keys": 77}, ("native, slower",) * 5),
        ("qk", None, A_F8, {"head": 40, "keys": 32}, ("refused", "refused", "refused", "native", "native")),
        ("qk", None, A_F8, {"head": 40, "keys": 31}, ("refused", "refused", "refused", *["native, slower"] * 2)),
        ("qk", None, A_F8, {"head": 264, "keys": 64}, ("refused", "refused", "refused", *["native, slower"] * 2)),
    ],
)  # fmt: skip
def test_what_tensorrt_rtx_compiles_operations_to(op, weights, inputs, more, forms):
    """As `benchmarks.rtx_kernels` shows it."""
    request = Request(op, weights, inputs, reduced=64, **more)
    offers = [load_target(target).offer(request) for target in RTX]

    assert forms == tuple(f"{o.form}{', slower' if o.slower else ''}" for o in offers)


@pytest.mark.parametrize(
    ("target", "dtype", "both", "alone"),
    [
        ("rtx-blackwell", "nvfp4", "native", "stored"),
        ("rtx-blackwell", "mxfp8", "refused", "refused"),
        ("rtx-ada", "nvfp4", "refused", "refused"),
        ("rtx-ada", "mxfp8", "refused", "refused"),
    ],
)
def test_which_floats_in_blocks_tensorrt_rtx_multiplies(target, dtype, both, alone):
    weights = Weights(dtype=dtype, granularity="block", block=number_type(dtype).block)
    inputs = Inputs(dtype=dtype, granularity="block", mode="dynamic")

    assert form(target, "linear", weights, inputs) == both
    assert form(target, "linear", weights) == alone


@pytest.mark.parametrize("target", ["tensorrt", "tensorrt-ada", "jetson-orin"])
@pytest.mark.parametrize(
    ("head", "keys", "slow"),
    [(16, 512, False), (64, 1, False), (64, 513, True), (40, 77, True), (128, 77, True)],
)
def test_attention_in_8_bits_gains_nothing_where_no_kernel_is_fused(target, head, keys, slow):
    offer = load_target(target).offer(Request("qk", None, A8, head=head, keys=keys))

    assert (offer.form, offer.slower is not None) == ("native", slow)


@pytest.mark.parametrize(("kernel", "expected"), [(9, "native"), (32, "native"), (33, "simulated")])
def test_convolutions_in_8_bit_floats_have_small_kernels(kernel, expected):
    offer = load_target("tensorrt-ada").offer(Request("conv2d", F8, A_F8, kernel=kernel))

    assert offer.form == expected
    assert (offer.slower is None) == (expected == "native")


@pytest.mark.parametrize("target", list_targets())
def test_every_row_decides_something(target):
    """A row that an earlier one covers would be a rule that nobody reads."""
    own = tomllib.loads((FOLDER / f"{target}.toml").read_text()).get("kernels", [])
    kernels = load_target(target).kernels
    reached = set()
    for request in requests():
        reached.add(next((n for n, kernel in enumerate(kernels) if kernel.carries(request)), None))

    # Rows that were taken over from another target stand behind; its own ones may cover them.
    assert set(range(len(own))) <= reached


def requests():
    floats = [None, *(Weights(dtype=dtype) for dtype in ("float32", "float16"))]
    quantized = [
        Weights(dtype=dtype, granularity=granularity, block=32 if granularity == "block" else None, symmetric=symmetric)
        for dtype in ("int8", "uint8", "int4", "uint4", "float8_e4m3fn")
        for granularity in ("tensor", "channel", "block")
        for symmetric in (True, False)
    ] + [
        Weights(dtype="int4", granularity="block", block=64)
    ] + [
        Weights(dtype=f"palette{bits}", granularity="grouped_channel" if group else "tensor", group=group, lut_dtype=table)
        for bits in (3, 4)
        for group in (None, 16)
        for table in ("float16", "int8")
    ] + [
        Weights(dtype=dtype, granularity="block", block=number_type(dtype).block) for dtype in BLOCK_FLOATS
    ]  # fmt: skip
    blocks = [Inputs(dtype=dtype, granularity="block", mode="dynamic") for dtype in BLOCK_FLOATS]
    inputs = [None, TOKEN, Inputs(dtype="float8_e4m3fn"), *blocks] + [
        Inputs(dtype=dtype, symmetric=symmetric)
        for dtype in ("int8", "uint8", "int6", "int5", "uint5", "int4", "uint4", "int3", "int2")
        for symmetric in (True, False)
    ]
    for op in ("conv1d", "conv2d", "linear", "qk", "pv", "add"):
        for weights in floats + quantized:
            for scheme in inputs:
                for by_timestep in (False, True):
                    kernel = 9 if op.startswith("conv") else 0
                    yield Request(op, weights, scheme, by_timestep, 64, kernel=kernel)
    yield Request("linear", W8, None, storage="float16")
    yield Request("conv2d", F8, A_F8, kernel=49)
    for head, keys in ((40, 64), (64, 16), (64, 64), (64, 400)):
        for scheme in (A8, A_F8):
            yield Request("qk", None, scheme, head=head, storage="float16", keys=keys)


ROW = {"op": ["linear"], "form": "native", "why": "x"}


@pytest.mark.parametrize(
    "change",
    [
        {"op": []},
        {"op": "linear"},
        {"op": ["Linear"]},
        {"weights": ["int7"]},
        {"weights": []},
        {"weight_granularity": ["group"]},
        {"input_granularity": ["channel"]},
        {"form": "float"},
        {"why": ""},
        {"stored": "float32"},
        {"colour": "red"},
    ],
)
def test_a_faulty_row_is_refused(change):
    profile = tomllib.loads((FOLDER / "openvino.toml").read_text())
    with pytest.raises(ValidationError):
        TargetProfile.model_validate({**profile, "kernels": [ROW | change]})


def test_the_first_row_that_fits_decides():
    rows = [Kernel.model_validate(ROW | {"why": why, "weights": dtypes}) for why, dtypes in
            (("a", ["int4"]), ("b", ["int8"]), ("c", ["int8"]))]  # fmt: skip

    assert offer_of(rows, Request("linear", W8, None)).why == "b"


@pytest.mark.parametrize(
    ("op", "words"),
    [
        ("linear", "no kernel computes or stores this combination"),
        ("qk", "only linear run in low precision"),
    ],
)
def test_where_no_row_fits_the_reason_is_said(op, words):
    row = Kernel.model_validate(ROW | {"weights": ["int8"]})

    assert offer_of([row], Request(op, W4, None)).why == words
    assert offer_of([], Request(op, W4, None)).why == "nothing runs so"


def test_nncf_makes_openvino_s_artifacts_only():
    assert [name for name in list_targets() if load_target(name).quantizers != ("qdx",)] == [
        "openvino"
    ]
    assert load_target("openvino").quantizers == ("qdx", "nncf")


def test_requests_are_named_by_what_is_asked():
    assert (
        str(Request("linear", BLOCKS, TOKEN))
        == "linear with int4 weights (block 32) and int8 inputs (token)"
    )
    assert str(Request("qk", None, ASYMMETRIC)) == "qk with uint8 inputs (tensor, asymmetric)"
    assert (
        str(Request("conv2d", U8, None))
        == "conv2d with uint8 weights (channel, asymmetric) and float inputs"
    )
    assert (
        str(Request("linear", F32, A8, by_timestep=True))
        == "linear with float32 weights and int8 inputs (timestep groups)"
    )


@pytest.mark.parametrize(
    ("target", "macs", "slow"),
    [
        ("onnxruntime", 10**9, True),
        ("onnxruntime", 0, True),
        ("openvino", 999_999, True),
        ("openvino", 1_000_000, False),
    ],
)
@pytest.mark.parametrize("op", ["qk", "pv"])
@pytest.mark.parametrize("by_timestep", [False, True])
def test_where_products_of_attention_gain_nothing(target, op, macs, by_timestep, slow):
    offer = load_target(target).offer(Request(op, None, A8, by_timestep, macs=macs))

    assert (offer.slower is not None) == slow
    assert offer.form in {"native", "decomposed"}


@pytest.mark.parametrize("target", list_targets())
def test_values_rounded_and_computed_as_floats_are_never_faster(target):
    profile = load_target(target)

    assert all(
        row.slower
        for row in profile.kernels
        if "computed as floats" in row.why or row.form == "stored"
    )
    offer = profile.offer(Request("conv2d", W8, A8, macs=1))
    assert offer.form != "native" or offer.slower is None


def test_a_limit_without_a_reason_is_no_row():
    with pytest.raises(ValidationError, match="the reason"):
        Kernel(op=("qk",), form="native", why="8 bits", slower_below_macs=5)


@pytest.mark.parametrize(
    ("first", "then", "covered"),
    [
        ({}, {}, True),
        ({}, {"weights": ("int8",), "input_granularity": ("token",)}, True),
        ({"weights": ("int8", "int4")}, {"weights": ("int8",)}, True),
        ({"weights": ("int8",)}, {}, False),
        ({"weights": ("int8",)}, {"weights": ("int8", "int4")}, False),
        ({"input_symmetric": True}, {}, False),
        ({"whole_blocks": True}, {}, False),
        ({"head_limit": 256}, {}, False),
        ({"head_limit": 256}, {"head_limit": 64}, True),
        ({"head_multiple": 8}, {"head_multiple": 16}, True),
        ({"head_multiple": 16}, {"head_multiple": 8}, False),
        ({"heads": (16, 32)}, {"heads": (32,)}, True),
        ({"heads": (16, 32)}, {"heads": (64,)}, False),
        ({"heads": (16, 32)}, {}, False),
        ({"keys_limit": 512}, {"keys_limit": 256}, True),
        ({"keys_limit": 512}, {}, False),
        ({"keys_least": 32}, {"keys_least": 64}, True),
        ({"keys_least": 32}, {}, False),
        ({"kernel_limit": 32}, {}, False),
        ({"whole_channels": True}, {}, False),
        ({}, {"whole_channels": True, "kernel_limit": 32, "heads": (16,), "keys_least": 2}, True),
    ],
)
def test_a_row_decides_nothing_after_one_that_speaks_of_all_that_it_does(first, then, covered):
    rows = [Kernel(op=("linear",), form="native", why="w", **one) for one in (first, then)]

    assert list(reached(rows)) == ([1] if covered else [1, 2])
