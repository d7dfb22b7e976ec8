"""What a plan means for given components on a given target."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from qdx.exporter.errors import InvalidPlan, TargetRefusal
from qdx.exporter.plan import load_plan, plan_from_json, resolve
from qdx.targets import load_target

GATES = {"component": {"sqnr_db_min": 50}, "pipeline": {"psnr_db_min": 40, "ssim_min": 0.98}}


@dataclass(frozen=True)
class Target:
    name: str = "toaster"
    storage_dtypes: tuple[str, ...] = ("float32", "float16")
    compute_dtype: str = "float32"
    refused: dict[str, str] = field(default_factory=dict)
    refused_options: dict[str, str] = field(default_factory=dict)


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


def test_what_no_rule_matches_keeps_float32_and_says_so():
    resolved = resolve(plan_of(("unet", "float16")), ["unet", "vae"], Target())

    vae = resolved.components[1]
    assert (vae.asked, vae.rule, vae.becomes) == ("float32", "default", "float32")
    assert vae.why == "no rule matches, so float32 stays; computed in float32"


def test_storage_that_is_not_the_computed_type_is_explained():
    resolved = resolve(load_plan("float16"), ["unet"], Target())

    assert (
        resolved.components[0].why
        == "stored as asked; converted to float32 when loaded, and computed so"
    )


def test_mixed_precision_is_told_of_what_computes_in_sixteen_bits():
    plan = load_plan("mixed-float16")
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
        resolve(load_plan("mixed-float16"), ["unet"], load_target(target))

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
        "`p.json:12:5`: unreachable, for all that `vae` matches (vae) later rules decide: rules[1]\n\n"
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
