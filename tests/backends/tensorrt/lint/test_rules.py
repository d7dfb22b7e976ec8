"""Every rule accepts something and rejects something, with its message."""

from __future__ import annotations

import re

import onnx_ir as ir
import pytest

from qdx.backends.tensorrt.lint import RULES, DeviceFacts, Severity, lint
from qdx.backends.tensorrt.versions import VersionRange
from tests.support import lint_block_cases as block_cases
from tests.support import lint_placement_cases as placement_cases
from tests.support import lint_quantizer_cases as quantizer_cases
from tests.support.lint_cases import CASES
from tests.support.lint_models import broken, faults, linear


def test_every_rule_has_cases():
    assert sorted(rule.name for rule in RULES) == sorted(CASES)
    assert all(rejected for _, rejected, *_ in CASES.values())


@pytest.mark.parametrize("rule", CASES)
def test_accepted(rule):
    accepted, _, *facts = CASES[rule]

    assert faults(accepted, rule, *facts) == []


@pytest.mark.parametrize(
    ("rule", "model", "message", "facts"),
    [
        pytest.param(rule, model, message, facts, id=f"{rule}-{index}")
        for rule, (_, rejected, *_) in CASES.items()
        for index, (model, message, *facts) in enumerate(rejected)
    ],
)
def test_rejected(rule, model, message, facts):
    found = faults(model, rule, *facts)

    assert found
    assert re.search(message, found[0])


def test_a_right_model_breaks_nothing():
    assert broken(linear()) == []


def test_findings_name_rule_severity_node_and_next_step():
    (finding,) = lint(linear(sizes=(8, 64)))

    assert (finding.rule, finding.severity) == ("small-product", Severity.WARNING)
    assert finding.node == "MatMul y"
    assert finding.message.endswith("expected at least 16 of each")
    assert finding.hint == "keep it in float"


def test_errors_come_before_warnings():
    model = linear(sizes=(8, 64), scale=0)

    assert broken(model) == ["scale-not-positive", "small-product"]


def test_rules_say_what_must_hold_in_a_line():
    assert all(rule.says.endswith(".") for rule in RULES)
    assert len({rule.name for rule in RULES}) == len(RULES)


def test_weights_are_not_read():
    model = linear()

    def read():
        raise AssertionError("a weight was read")

    weight = model.graph.initializers["w"]
    weight.const_value = ir.LazyTensor(
        read, dtype=ir.DataType.INT8, shape=ir.Shape([32, 64]), name="w"
    )

    assert broken(model, DeviceFacts(compute_capability=(8, 9), refit=True)) == ["refit"]


def test_two_level_scales_break_no_rule_of_scales():
    model = quantizer_cases.two_levels()

    assert broken(model) == []


@pytest.mark.parametrize(
    "model", [block_cases.nvfp4(), block_cases.mxfp8()], ids=["nvfp4", "mxfp8"]
)
def test_products_in_blocks_of_floats_break_nothing(model):
    assert broken(model, block_cases.BLACKWELL) == []


@pytest.mark.parametrize(
    ("model", "versions", "rules"),
    [
        (block_cases.nvfp4(), ">=10.7,<12", {"operator-version", "format-version"}),
        (block_cases.mxfp8(), ">=10.11,<12", {"operator-version"}),
    ],
    ids=["nvfp4", "mxfp8"],
)
def test_older_versions_do_not_read_blocks_of_floats(model, versions, rules):
    facts = DeviceFacts(VersionRange.parse(versions), block_cases.BLACKWELL.compute_capability)

    assert set(broken(model, facts)) == rules


@pytest.mark.parametrize(
    "model",
    [
        placement_cases.half_product(scales=(32,), data="bfloat16"),
        placement_cases.half_product(scales=(32,), data="float"),
        placement_cases.half_product("int4", scales=(32,), node="MatMul(x, k)"),
    ],
    ids=["bfloat16", "float32", "weights alone"],
)
def test_scales_of_channels_are_right_where_no_half_holds_sums_of_integers(model):
    assert faults(model, "raw-sum") == []


def test_a_product_by_channel_and_its_bias_are_seen_through_to_the_skip_connection():
    model = placement_cases.skip(quantizes_skip=False, ratios=True)

    assert broken(model) == ["residual"]
    ("rule", "model"),
    [
        ("int4-block", quantizer_cases.blocks(sizes=(4, 64), block=32)),
        ("small-product", linear(sizes=(8, 64))),
        ("residual", placement_cases.skip(quantizes_skip=False)),
        ("float8-convolution", placement_cases.convolution(sizes=(64, 32, 3, 3), group=2)),
        ("float8-convolution", placement_cases.convolution(sizes=(32, 16, 3, 3))),
        ("float8-attention", placement_cases.attention("fp8", head=40)),
        ("float8-attention", placement_cases.attention("fp8", number="float16")),
    ],
)
def test_tensorrt_rtx_has_kernels_that_tensorrt_does_not_document(rule, model):
    assert faults(model, rule)
    assert faults(model, rule, placement_cases.ON_ADA) == []
