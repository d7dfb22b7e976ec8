"""Bytes, bits and shares of a resolution."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import pytest

from qdx.exporter.plan import examine, resolve
from qdx.exporter.plan.resolve.feasibility import Offer
from qdx.exporter.plan.resolve.totals import (
    component_totals,
    computed_floats,
    precisions_of,
    totals_of,
    weight_bytes,
)
from qdx.targets import load_target
from tests.support.plans import CHOICES, INT8, SITES, plan_of, site


def one(weights, shape=(4, 64), inputs=None, op="linear"):
    rule = {"select": {"op": op}, "weights": weights} | ({"inputs": inputs} if inputs else {})
    sites = {"unet.forward": (site("a", op, shape=shape),)}
    return resolve(plan_of(rule), ["unet"], load_target("onnxruntime"), sites).sites[
        "unet.forward"
    ][0]


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({"dtype": "int8"}, 256 + 4 * 4),
        ({"dtype": "int8", "granularity": "tensor"}, 256 + 4),
        ({"dtype": "uint8", "symmetric": False}, 256 + 4 * 4 + 4),
        ({"dtype": "int4", "granularity": "block", "block": 32}, 128 + 8 * 4),
        ({"dtype": "uint4", "granularity": "block", "block": 32, "symmetric": False}, 128 + 8 * 4 + 4),
        ({"dtype": "float8_e4m3fn"}, 256 + 4 * 4),
    ],
)  # fmt: skip
def test_bytes_of_a_weight(weights, expected):
    assert expected == weight_bytes(one(weights))


def test_a_low_rank_branch_counts_in_bytes_and_arithmetic():
    plain = {"dtype": "int8"}
    half = one({**plain, "low_rank": {"rank": 2, "dtype": "float16"}})
    assert weight_bytes(half) == 256 + 4 * 4 + 2 * 2 * (4 + 64)
    stored = one({**plain, "low_rank": {"rank": 2}})
    assert weight_bytes(stored) == 256 + 4 * 4 + 4 * 2 * (4 + 64)
    beside, alone = totals_of([half]), totals_of([one(plain)])
    assert beside.macs - alone.macs == half.site.macs * 2 * (4 + 64) // (4 * 64)
    assert beside.macs_by_precision["float32 x float32"] == beside.macs - alone.macs
    assert beside.elements == alone.elements


def test_a_rotation_counts_once_where_operations_read_the_same():
    plain = {"dtype": "int8"}
    turned = one({**plain, "rotate": {}})
    assert turned.weights.rotate.block == 64
    reads = replace(turned.site, source="norm", input_elements=640)
    q, k = (replace(turned, site=replace(reads, key=key, weight=f"{key}.weight")) for key in "qk")
    other = replace(q, site=replace(q.site, key="v", weight="v.weight", source="words"))
    alone = totals_of([one(plain)])
    two, three = totals_of([q, k]), totals_of([q, k, other])
    assert two.macs - 2 * alone.macs == 640 * 64
    assert three.macs - 3 * alone.macs == 2 * 640 * 64
    assert three.macs_by_precision["float32 x float32"] == 2 * 640 * 64
    assert three.weight_bytes - 3 * alone.weight_bytes == 4 * 64 * 64
    half = totals_of([replace(q, float_dtype="float16")])
    assert half.weight_bytes - alone.weight_bytes == 2 * 64 * 64


class Anything:
    """A target that stores whatever is asked, scales like float weights."""

    name = "anything"
    storage_dtypes = ("float32", "float16")
    compute_dtype = "float16"
    refused = MappingProxyType({})
    refused_options = MappingProxyType({})
    quantizers = ("qdx",)
    choices = CHOICES

    def offer(self, request):
        return Offer("stored", "anything", scales="storage")


@pytest.mark.parametrize("storage", ["float32", "float16"])
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 8])
@pytest.mark.parametrize(
    ("granularity", "tables"),
    [({"granularity": "tensor"}, 1), ({"granularity": "grouped_channel", "group": 16}, 4)],
)
@pytest.mark.parametrize("lut_dtype", [None, "int8"])
def test_bytes_of_a_palette_are_indices_and_tables(storage, bits, granularity, tables, lut_dtype):
    rules = (
        {"weights": {"dtype": storage}},
        {
            "select": {"op": "conv2d"},
            "weights": {"dtype": f"palette{bits}", "lut_dtype": lut_dtype, **granularity},
        },
    )
    sites = {"unet.forward": (site("a", "conv2d", shape=(64, 8, 3, 3)),)}
    found = resolve(plan_of(*rules), ["unet"], Anything(), sites).site("unet.forward", "a")

    width = 4 if storage == "float32" else 2
    table = 2**bits * width if lut_dtype is None else 2**bits + width
    assert weight_bytes(found) == 64 * 8 * 9 * bits / 8 + tables * table
    assert precisions_of(found) == {f"palette{bits} x float32": 1}


def test_scales_stored_like_float_weights_take_their_bytes():
    rules = (
        {"weights": {"dtype": "float16"}},
        {"select": {"op": "linear"}, "weights": {"dtype": "int8"}},
    )
    sites = {"unet.forward": (site("a", shape=(4, 64)),)}
    found = resolve(plan_of(*rules), ["unet"], Anything(), sites).site("unet.forward", "a")

    assert weight_bytes(found) == 256 + 4 * 2


def test_the_last_block_may_be_short():
    scheme = {"dtype": "int8", "granularity": "block", "block": 32}

    assert weight_bytes(one(scheme, shape=(4, 40))) == 160 + 4 * 2 * 4


def test_narrow_weights_in_a_wider_type_take_its_bytes():
    found = one({"dtype": "int4"}, inputs={"dtype": "int8"})

    assert (found.form, found.stored_dtype) == ("simulated", "int8")
    assert weight_bytes(found) == 256 + 4 * 4


def test_precisions_are_named_by_both_sides():
    assert precisions_of(one({"dtype": "int4"})) == {"int4 x float32": 1}
    assert precisions_of(one({"dtype": "int8"}, inputs={"dtype": "int5"})) == {"int8 x int5": 1}


def test_floats_are_named_by_the_type_that_they_are_computed_in():
    rule = {"select": {"component": "unet", "op": "linear"}, "weights": INT8}
    resolved = resolve(plan_of(rule), ["unet", "vae"], load_target("tensorrt"), SITES)
    sums = component_totals(resolved)

    assert computed_floats(resolved) == {"unet": "float16", "vae": "float16"}
    assert set(sums["unet"].macs_by_precision) == {
        "activations x float16",
        "float16 x float16",
        "int8 x float16",
    }


def test_sums_of_components():
    rule = {
        "select": {"component": "unet", "op": ["conv2d", "linear"]},
        "weights": {"dtype": "int8"},
        "inputs": {"dtype": "int8"},
    }
    resolved = resolve(plan_of(rule), ["unet", "vae"], load_target("openvino"), SITES)
    sums = component_totals(resolved)

    assert list(sums) == ["unet", "vae"]
    assert (sums["unet"].operations, sums["unet"].quantized) == (9, 6)
    assert sums["unet"].macs == 9201
    assert sums["unet"].low_precision_share == pytest.approx(7201 / 9201)
    assert sums["unet"].macs_by_precision == {"activations x float32": 2000, "int8 x int8": 7201}
    assert sums["vae"].weight_bytes == sums["vae"].float32_bytes == 8 * 8 * 9 * 4
    assert sums["vae"].bits_per_weight == 32


def test_a_scheme_counts_by_the_share_of_the_steps_at_which_it_holds():
    def inputs(dtype):
        return {"inputs": {"dtype": dtype, "symmetric": True}}

    base = {"select": {"op": "linear"}, "weights": {"dtype": "int8"}, **inputs("int8")}
    late = {"select": {"op": "linear", "timesteps": [0.7, 1]}, **inputs("int4")}
    sites = {"unet.forward": (site("a"), site("n", "group_norm", macs=500))}
    plan = plan_of(base, late, calibration={"timestep_groups": 10})
    resolved = resolve(plan, ["unet"], load_target("openvino"), sites)
    sums = totals_of(resolved.sites["unet.forward"])

    assert sums.macs_by_precision == {
        "float32 x float32": 500,
        "int8 x int4": 300,
        "int8 x int8": 700,
    }
    assert (sums.macs, sums.low_precision_share) == (1500, pytest.approx(1000 / 1500))


def test_what_is_refused_is_in_no_precision():
    rule = {"select": {"op": "linear"}, "weights": {"dtype": "palette4"}, "inputs": INT8}
    sites = {"unet.forward": (site("a"), site("n", "group_norm", macs=500))}
    found = examine(plan_of(rule), ["unet"], load_target("openvino"), sites).resolved
    sums = totals_of(found.sites["unet.forward"])

    assert sums.macs_by_precision == {"float32 x float32": 500, "refused": 1000}
    assert (sums.quantized, sums.low_precision_share) == (0, 0)


def test_a_shared_weight_counts_once():
    sites = {"unet.forward": (site("a", weight="w"), site("b", weight="w"))}
    resolved = resolve(plan_of({"keep": "float32"}), ["unet"], load_target("openvino"), sites)

    assert totals_of(resolved.sites["unet.forward"]).elements == 64 * 64


def test_nothing_has_no_bits():
    sums = totals_of(())

    assert (sums.bits_per_weight, sums.low_precision_share) == (0, 0)
