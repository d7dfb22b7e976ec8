"""Plans that ask for NVFP4 and MXFP8: what they may say, where they can be had, and what they weigh."""

from __future__ import annotations

import pytest

from qdx.exporter.errors import InvalidPlan, TargetRefusal
from qdx.exporter.plan import load_plan, resolve
from qdx.exporter.plan.resolve.totals import totals_of
from qdx.targets import list_targets, load_target
from tests.support.block_bytes import mxfp8_bytes, nvfp4_bytes
from tests.support.plans import KINDS, SITES, plan_of, site

BLOCKS = {"nvfp4": 16, "mxfp8": 32}
BYTES = {"nvfp4": nvfp4_bytes, "mxfp8": mxfp8_bytes}


def weights(name, **more):
    return {"dtype": name, "granularity": "block", "block": BLOCKS[name], **more}


def inputs(name, **more):
    return {"dtype": name, "granularity": "block", "mode": "dynamic", **more}


def resolved(sites, target="tensorrt-blackwell", **rule):
    plan = plan_of({"select": {"component": "*"}, "weights": {"dtype": "float16"}}, rule)
    return resolve(plan, ["unet"], load_target(target), {"unet.forward": sites}).sites[
        "unet.forward"
    ]


FAULTS = [
    ({"weights": {"dtype": "nvfp4", "granularity": "channel"}}, "nvfp4 without blocks of 16"),
    ({"weights": weights("nvfp4", block=32)}, "nvfp4 without blocks of 16"),
    ({"weights": weights("mxfp8", block=16)}, "mxfp8 without blocks of 32"),
    ({"weights": weights("nvfp4", symmetric=False)}, "`symmetric` means nothing for nvfp4"),
    ({"weights": weights("mxfp8", observer="mse")}, "`observer` means nothing for mxfp8"),
    ({"inputs": {"dtype": "mxfp8"}}, "mxfp8 inputs with granularity `tensor` and mode `static`"),
    ({"inputs": inputs("nvfp4", mode="static")}, "nvfp4 inputs with granularity `block` and mode `static`"),
    ({"inputs": inputs("nvfp4", timestep_groups=2)}, "`timestep_groups` means nothing for nvfp4"),
    ({"inputs": inputs("nvfp4", observer="mse")}, "observer `mse` for nvfp4"),
    ({"inputs": inputs("mxfp8", observer="minmax")}, "`observer` means nothing for mxfp8"),
    ({"inputs": {"dtype": "int8", "granularity": "block", "mode": "dynamic"}}, "granularity `block` for int8 inputs"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "words"), FAULTS)
def test_contradictions_name_the_key_and_the_next_step(rule, words):
    with pytest.raises(InvalidPlan, match=words):
        plan_of(rule)


@pytest.mark.parametrize("name", BLOCKS)
def test_what_is_consistent_is_a_plan(name):
    plan_of({"weights": weights(name), "inputs": inputs(name)})
    plan_of({"weights": weights(name)})
    plan_of({"weights": weights("nvfp4", observer="mse")})
    plan_of({"inputs": inputs("nvfp4", observer="percentile", percentile=0.999)})


def test_only_the_scale_of_a_tensor_is_calibrated():
    plan = plan_of({"inputs": inputs("nvfp4")}, {"inputs": inputs("mxfp8")})

    assert [rule.inputs.calibrated for rule in plan.rules] == [True, False]


@pytest.mark.parametrize("name", BLOCKS)
def test_linear_layers_take_both_factors_or_weights_alone(name):
    linear = (site("to_q", shape=(96, 64)),)
    (both,) = resolved(linear, weights=weights(name), inputs=inputs(name))
    (alone,) = resolved(linear, weights=weights(name))

    assert (both.form, both.weights.block) == ("native", BLOCKS[name])
    assert (alone.form, alone.inputs) == ("stored", None)


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize(
    ("op", "shape", "rule", "words"),
    [
        ("conv2d", (64, 64, 3, 3), {}, "only matrix products"),
        ("linear", (64, 24), {}, "blocks of {block} do not divide its 24 inputs"),
        ("linear", (64, 8), {}, "blocks of {block} do not divide its 8 inputs"),
        ("linear", (64, 64), {"inputs": {"dtype": "float8_e4m3fn"}}, "the same format"),
        ("qk", (), {"weights": None}, "only matrix products with a weight"),
    ],
)
def test_blackwell_refuses_the_rest_with_the_reason(name, op, shape, rule, words):
    asked = {"weights": weights(name), "inputs": inputs(name), **rule}
    asked = {key: value for key, value in asked.items() if value is not None}
    sites = (site("one", op, shape=shape), site("other", shape=(32, 32)))

    with pytest.raises(TargetRefusal) as refused:
        resolved(sites, **{**asked, "select": {"name": "one"}})
    (one,) = refused.value.refusals
    assert words.format(block=BLOCKS[name]) in one.reason


HAVE = {"nvfp4": ("tensorrt-blackwell", "rtx-blackwell"), "mxfp8": ("tensorrt-blackwell",)}
"""The targets that multiply each format."""


@pytest.mark.parametrize(
    ("name", "target"), [(n, t) for n in BLOCKS for t in list_targets() if t not in HAVE[n]]
)
def test_other_targets_name_one_that_can(name, target):
    linear = (site("to_q", shape=(96, 64)),)

    with pytest.raises(TargetRefusal) as refused:
        resolved(linear, target, weights=weights(name), inputs=inputs(name))
    assert any(one in refused.value.refusals[-1].reason for one in HAVE[name])


@pytest.mark.parametrize("name", BLOCKS)
def test_bytes_are_those_of_the_format(name):
    found = resolved((site("to_q", shape=(96, 64)),), weights=weights(name))

    assert totals_of(found).weight_bytes == BYTES[name]((96, 64))


@pytest.mark.parametrize("name", BLOCKS)
def test_the_presets_protect_what_few_weights_depend_on(name):
    plan, target = load_plan(name), load_target("tensorrt-blackwell")
    sites = (
        *SITES["unet.forward"],
        site("proj_in"),
        site("up.shortcut", "conv2d", "shortcut", shape=(64, 64, 1, 1)),
    )
    found = resolve(plan, ["unet"], target, {"unet.forward": sites}, KINDS).sites["unet.forward"]

    assert {r.key: (r.weights.dtype, None if r.inputs is None else r.inputs.dtype) for r in found if r.weights} == {
        "conv_in": ("float16", None),
        "time_embedding.linear_1": ("float8_e4m3fn", None),
        "down_blocks.0.norm": ("float16", None),
        "down_blocks.0.conv": ("float8_e4m3fn", "float8_e4m3fn"),
        "down_blocks.0.attn.to_q": (name, name),
        "mid_block.ff": (name, name),
        "conv_out": ("float16", None),
        "proj_in": ("float8_e4m3fn", "float8_e4m3fn"),
        "up.shortcut": ("float16", None),
    }  # fmt: skip
    assert plan.gates.lowering.sqnr_db_min == 45
    assert plan.gates.audit.executed_share_min == 0.95
