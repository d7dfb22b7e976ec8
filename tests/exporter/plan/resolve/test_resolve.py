"""What a plan means for given components on a given target."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from qdx.exporter.errors import InvalidPlan, TargetRefusal
from qdx.exporter.plan import Choices, Chosen, examine, load_plan, plan_from_json, resolve
from qdx.exporter.plan.schema.choices import FloatChoice
from qdx.targets import load_target
from tests.support.plans import CHOICES

GATES = {"component": {"sqnr_db_min": 50}, "pipeline": {"psnr_db_min": 40, "ssim_min": 0.98}}


@dataclass(frozen=True)
class Target:
    name: str = "toaster"
    storage_dtypes: tuple[str, ...] = ("float32", "float16")
    compute_dtype: str = "float32"
    refused: dict[str, str] = field(default_factory=dict)
    refused_options: dict[str, str] = field(default_factory=dict)
    choices: Choices = CHOICES


def plan_of(*rules):
    written = []
    for glob, dtype in rules:
        written.append({"select": {"component": glob}, "weights": {"dtype": dtype}})
    return plan_from_json(
        {"schema": "qdx.plan/1", "rules": written, "gates": GATES}, source="p.json"
    )


def test_the_last_rule_that_matches_decides():
    plan = plan_of(("*", "float16"), ("vae", "float32"))
    resolved = resolve(plan, ["unet", "vae"], Target())

    assert {n: resolved.storage_dtype(n) for n in ("unet", "vae")} == {
        "unet": "float16",
        "vae": "float32",
    }
    assert [r.rule for r in resolved.components] == ["rules[0]", "rules[1]"]


def test_globs_select_by_name():
    plan = plan_of(("text_encoder*", "float16"), ("text_encoder_?", "float32"))
    resolved = resolve(plan, ["text_encoder", "text_encoder_2"], Target())

    assert [r.becomes for r in resolved.components] == ["float16", "float32"]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("said", [False, True])
def test_a_float_type_that_is_unsaid_is_the_targets_and_says_so(dtype, said):
    choices = CHOICES.model_copy(update={"float_dtype": FloatChoice(value=dtype, why="it is hot")})
    rules = [("unet", "bfloat16"), *([("vae", "float")] if said else [])]
    resolved = examine(plan_of(*rules), ["unet", "vae"], Target(choices=choices)).resolved

    vae = resolved.components[1]
    rule = "rules[1]" if said else "default"
    assert (vae.asked, vae.rule, vae.becomes) == ("float", rule, dtype)
    assert vae.why.startswith("chosen by toaster: it is hot; ")
    assert Chosen("float", dtype, "toaster", "it is hot") in resolved.chosen
    assert Chosen("float", "bfloat16", "rules[0]", "") in resolved.chosen


def test_storage_that_is_not_the_computed_type_is_explained():
    resolved = resolve(load_plan("float16"), ["unet"], Target())

    assert (
        resolved.components[0].why
        == "stored as asked; converted to float32 when loaded, and computed so"
    )


def mixed(value):
    plan = load_plan("float16").to_json()
    return plan_from_json({**plan, "options": {"mixed_precision": value}}, source="p.json")


@pytest.mark.parametrize("target", ["mac-gpu", "coreml", "openvino"])
def test_mixed_precision_is_the_targets_where_it_is_unsaid(target):
    chosen = load_target(target).choices.mixed_precision
    unsaid = resolve(load_plan("float16"), ["unet"], load_target(target))

    assert unsaid.mixed_precision == chosen.value == (target == "mac-gpu")
    assert Chosen("options.mixed_precision", chosen.value, target, chosen.why) in unsaid.chosen
    for value in (True, False):
        said = resolve(mixed(value), ["unet"], load_target(target))
        assert said.mixed_precision == said.float_types("unet").mixed == value
        assert Chosen("options.mixed_precision", value, "plan", "") in said.chosen


def test_mixed_precision_is_told_of_what_computes_in_sixteen_bits():
    plan = mixed(True)
    half, single = (
        resolve(plan, ["unet"], load_target(name)) for name in ("mac-gpu", "onnxruntime")
    )

    assert half.components[0].why == (
        "stored as asked; computed in float16, but float32 between products"
    )
    assert single.components[0].why == (
        "stored as asked; converted to float32 when loaded, and computed so"
    )


@pytest.mark.parametrize("target", ["tensorrt", "tensorrt-ampere", "iphone-a17"])
def test_an_option_that_a_target_has_not_is_refused_with_the_reason(target):
    with pytest.raises(TargetRefusal) as caught:
        resolve(mixed(True), ["unet"], load_target(target))

    assert not resolve(mixed(False), ["unet"], load_target(target)).mixed_precision
    profile = load_target(target)
    assert (
        f"`{target}` has no `mixed_precision`: {profile.refused_options['mixed_precision']}"
        in str(caught.value)
    )
    assert "hint: leave `mixed_precision` out" in str(caught.value)


def test_an_id_names_the_rule():
    value = plan_of(("*", "float16")).to_json()
    value["rules"][0]["id"] = "half"
    resolved = resolve(plan_from_json(value, source="p.json"), ["unet"], Target())

    assert resolved.components[0].rule == "half"


def test_a_rule_that_matches_nothing_is_refused():
    with pytest.raises(InvalidPlan) as caught:
        resolve(plan_of(("*", "float16"), ("unnet", "float32")), ["unet", "vae"], Target())

    assert str(caught.value) == (
        "`p.json:20:5`: `unnet` matches no component of the pipeline\n\n"
        "hint: its components with weights are unet, vae"
    )


def test_a_rule_that_later_rules_cover_is_refused():
    with pytest.raises(InvalidPlan) as caught:
        resolve(plan_of(("vae", "float32"), ("*", "float16")), ["unet", "vae"], Target())

    assert str(caught.value) == (
        "`p.json:12:5`: unreachable: later rules decide everything that `vae` matches (vae): rules[1]\n\n"
        "hint: rules are read in order and the last match wins: put the general rule first"
    )


def test_all_that_a_target_cannot_store_is_refused_with_the_reason():
    target = Target(refused={"bfloat16": "its compiler reads no bfloat16"})
    with pytest.raises(TargetRefusal) as caught:
        resolve(
            plan_of(("*", "bfloat16"), ("vae", "float32")), ["text_encoder", "unet", "vae"], target
        )

    assert caught.value.exit_code == 3
    assert str(caught.value) == (
        "`toaster` cannot do what the plan asks for 2 components\n"
        "  `text_encoder`, `unet`: weights in bfloat16 (rules[0]): its compiler reads no bfloat16\n\n"
        "hint: choose another type for these components or another target; `toaster` stores float32, float16"
    )


def test_without_a_reason_the_refusal_says_what_the_target_stores():
    with pytest.raises(TargetRefusal) as caught:
        resolve(load_plan("bfloat16"), ["unet"], Target())

    assert (
        caught.value.refusals[0].reason
        == "weights in bfloat16 (rules[0]): the target stores weights as float32 or float16"
    )


def test_the_resolution_as_json():
    assert resolve(load_plan("float16"), ["unet"], Target()).to_json() == [
        {
            "component": "unet",
            "asked": "float16",
            "rule": "rules[0]",
            "becomes": "float16",
            "computes": "float32",
            "why": "stored as asked; converted to float32 when loaded, and computed so",
        }
    ]


def test_a_name_given_twice_counts_once():
    assert len(resolve(load_plan("float16"), ["unet", "unet"], Target()).components) == 1


def test_an_unknown_component_has_no_storage():
    with pytest.raises(KeyError):
        resolve(load_plan("float16"), ["unet"], Target()).storage_dtype("vae")


@pytest.mark.parametrize(
    ("stores", "becomes"),
    [
        (("float32", "float16"), "float32"),
        (("bfloat16", "float16"), "bfloat16"),
        (("float16",), "float16"),
    ],
)
def test_a_component_in_which_float16_overflows_is_wider(stores, becomes):
    target = Target(storage_dtypes=stores, compute_dtype="storage")

    resolved = resolve(plan_of(("*", "float16")), ["unet", "vae"], target, upcast=["vae"])

    assert [(r.becomes, r.computes) for r in resolved.components] == [
        ("float16", "float16"),
        (becomes, becomes),
    ]
    assert ("force_upcast" in resolved.components[1].why) == (becomes != "float16")
    chosen = {
        one.value: (one.by, "force_upcast" in one.why)
        for one in resolved.chosen
        if one.name == "float"
    }
    assert chosen == {"float16": ("rules[0]", False)} | (
        {} if becomes == "float16" else {becomes: (target.name, True)}
    )


@pytest.mark.parametrize(
    ("rules", "compute"),
    [
        ([("*", "float16"), ("vae", "float16")], "storage"),
        ([("*", "float16")], "float32"),
    ],
    ids=["a rule selects it", "the target computes in float32"],
)
def test_a_component_in_which_float16_overflows_stays_where_that_is_meant_or_harmless(
    rules, compute
):
    target = Target(compute_dtype=compute)

    resolved = resolve(plan_of(*rules), ["unet", "vae"], target, upcast=["vae"])

    assert resolved.storage_dtype("vae") == "float16"
    assert "force_upcast" not in resolved.components[1].why


def test_what_the_target_would_compute_in_float16_is_wider_too():
    choices = CHOICES.model_copy(
        update={"float_dtype": FloatChoice(value="float16", why="it is hot")}
    )
    target = Target(compute_dtype="storage", choices=choices)

    resolved = resolve(plan_of(("unet", "float16")), ["unet", "vae"], target, upcast=["vae"])

    assert [r.becomes for r in resolved.components] == ["float16", "float32"]
