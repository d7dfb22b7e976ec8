"""What a plan may quantize of a component, told without a trace."""

from __future__ import annotations

from qdx.exporter.plan import load_plan
from qdx.exporter.plan.resolve.untraced import Quantizing, quantizing_rules
from tests.support.plans import INT8, KINDS, plan_of


def rules_of(plan, component="unet", kinds=KINDS):
    return list(quantizing_rules(plan, [component], kinds)[component])


def test_rules_for_single_operations_of_a_kind_hold_where_the_component_may_be_of_it():
    plan = load_plan("w8a8")

    assert rules_of(plan, kinds={}) == [
        Quantizing("w8a8", ("denoiser",)),
        Quantizing("attention", ("denoiser",)),
    ]
    assert rules_of(plan) == [Quantizing("w8a8"), Quantizing("attention")]
    assert rules_of(plan, "vae") == []


def test_rules_for_other_components_do_not_hold():
    plan = plan_of({"id": "one", "select": {"component": "vae", "op": "conv2d"}, "weights": INT8})

    assert rules_of(plan) == []
    assert rules_of(plan, "vae") == [Quantizing("one")]


def test_rules_that_keep_floats_quantize_nothing():
    assert rules_of(load_plan("float16")) == []


def test_a_later_rule_for_the_whole_component_takes_its_part_back():
    first = {"id": "first", "select": {"op": "linear"}, "weights": INT8, "inputs": INT8}

    assert rules_of(plan_of(first, {"keep": "float32"})) == []
    assert rules_of(plan_of(first, {"weights": {"dtype": "float32"}})) == [Quantizing("first")]
    assert rules_of(plan_of(first, {"id": "all", "weights": INT8, "inputs": INT8})) == [
        Quantizing("all")
    ]
    kept = {"select": {"kind": "denoiser"}, "keep": "float32"}
    assert rules_of(plan_of(first, kept), kinds={}) == [Quantizing("first")]
    assert rules_of(plan_of(first, kept)) == []
