"""Rules that hold only where low precision is faster."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from qdx.exporter.errors import InvalidPlan, TargetRefusal
from qdx.exporter.plan import AskedInputs, Choices, resolve
from qdx.exporter.plan.resolve.faster import compared_macs
from qdx.exporter.plan.resolve.feasibility import Offer
from tests.support.plans import CHOICES, INT8, SITES, plan_of, site

LINEAR = {"select": {"op": "linear"}, "weights": INT8, "inputs": INT8}
ATTENTION = {"select": {"op": ["qk", "pv"]}, "inputs": INT8, "when": "faster"}


@dataclass
class Slow:
    """A target that gains from operations of 1000 multiply-accumulates and more with 8-bit inputs."""

    name: str = "slow"
    storage_dtypes: tuple[str, ...] = ("float32", "float16")
    compute_dtype: str = "float32"
    refused: dict[str, str] = field(default_factory=dict)
    refused_options: dict[str, str] = field(default_factory=dict)
    choices: Choices = CHOICES
    quantizers: tuple[str, ...] = ("qdx",)

    def offer(self, request):
        if request.inputs is not None and request.inputs.dtype == "int4":
            return Offer("refused", "no four bits")
        slow = request.inputs is None or request.macs < 1000
        return Offer("native", "8 bits", slower="too little work" if slow else None)


def found(*rules, sites=None, **extras):
    graph = sites or (site("small", macs=999), site("large", macs=1000))
    resolved = resolve(plan_of(*rules, **extras), ["unet"], Slow(), {"unet.forward": graph})
    return {r.key: r for r in resolved.sites["unet.forward"]}


def test_operations_that_gain_nothing_stay_float_and_say_why():
    sites = found({**LINEAR, "when": "faster"})
    small = sites["small"]

    assert (small.form, small.inputs, small.weights.dtype, small.stored_dtype) == (
        "float", None, "float32", "float32",
    )  # fmt: skip
    assert small.why == (
        "stored in float32; computed in float32; low precision is no faster: too little work"
    )
    assert (small.asked_weights.dtype, small.asked_inputs) == ("int8", AskedInputs(dtype="int8"))
    assert (small.weights_rule, small.inputs_rule) == ("rules[0]", "rules[0]")
    assert (sites["large"].form, sites["large"].why) == ("native", "8 bits")


@pytest.mark.parametrize("rule", [LINEAR, {**LINEAR, "when": "always"}])
def test_what_is_slower_is_done_where_the_rule_says_always(rule):
    assert {r.form for r in found(rule).values()} == {"native"}


def test_float_storage_is_that_of_the_component():
    storage = {"select": {"component": "unet"}, "weights": {"dtype": "float16"}}

    assert found(storage, {**LINEAR, "when": "faster"})["small"].stored_dtype == "float16"


def test_each_part_goes_by_the_rule_that_decides_it():
    weights = {"select": {"op": "linear"}, "weights": INT8}
    inputs = {"select": {"op": "linear"}, "inputs": INT8, "when": "faster"}
    small = found(weights, inputs)["small"]

    assert (small.form, small.inputs, small.weights.dtype) == ("native", None, "int8")
    assert small.why == "8 bits; low precision is no faster: too little work"


def test_all_rules_of_the_timesteps_must_say_so():
    early = {"select": {"timesteps": [0, 0.5]}, "inputs": INT8, "when": "faster"}
    late = {"select": {"timesteps": [0.5, 1]}, "inputs": INT8}
    weights = {"select": {"op": "linear"}, "weights": INT8}

    assert found(weights, early, late)["small"].inputs is not None
    assert found(weights, early, {**late, "when": "faster"})["small"].inputs is None


def test_both_products_of_an_attention_are_judged_by_the_smaller():
    sites = (
        site("a.qk", "qk", macs=5000), site("a.pv", "pv", macs=999),
        site("a.qk#2", "qk", macs=1000), site("a.pv#2", "pv", macs=5000),
        site("qk", "qk", macs=1), site("pv", "pv", macs=5000),
    )  # fmt: skip

    assert compared_macs(sites) == {
        "a.qk": 999, "a.pv": 999, "a.qk#2": 1000, "a.pv#2": 1000, "qk": 1, "pv": 1,
    }  # fmt: skip
    forms = {key: r.form for key, r in found(ATTENTION, sites=sites).items()}
    assert [key for key, form in forms.items() if form == "native"] == ["a.qk#2", "a.pv#2"]


def test_a_refusal_is_none_the_less_one():
    with pytest.raises(TargetRefusal, match="cannot do what the plan asks"):
        found({"select": {"op": "linear"}, "inputs": {"dtype": "int4"}, "when": "faster"})


def test_attention_need_not_be_there_for_a_rule_that_asks_only_where_it_is_faster():
    assert found(LINEAR, ATTENTION)["large"].form == "native"
    with pytest.raises(InvalidPlan, match="matches the op of no operation"):
        found(LINEAR, {**ATTENTION, "when": "always"})
    unsaid = {"select": {"op": ["qk", "pv"]}, "inputs": INT8}
    assert found(LINEAR, unsaid)["large"].form == "native"
    slip = {**ATTENTION, "select": {"op": "qkk"}}
    with pytest.raises(InvalidPlan, match="matches the op of no operation"):
        found(LINEAR, slip)
    other = {**ATTENTION, "select": {"op": "qk", "role": "first"}}
    with pytest.raises(InvalidPlan, match=r"matches the role of no operation|all that is selected"):
        found(LINEAR, other, sites=SITES["unet.forward"])
