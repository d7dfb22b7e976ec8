"""What an export says beside its result."""

from __future__ import annotations

import pytest

from qdx.compile.notes import option_notes
from qdx.exporter.plan import load_plan, plan_from_json, resolve
from qdx.targets import load_target

MIXED = {**load_plan("float16").to_json(), "options": {"mixed_precision": True}}


@pytest.mark.parametrize(
    ("target", "exported", "reason"),
    [
        ("mac-gpu", ["unet", "vae"], None),
        ("mac-gpu", ["vae"], "nothing that is exported is stored in sixteen bits"),
        ("openvino", ["unet"], "`openvino` computes floats in float32"),
    ],
)
def test_an_option_that_changes_nothing_is_said_to(
    target: str, exported: list[str], reason: str | None
) -> None:
    value = MIXED.copy()
    value["rules"] = [
        *value["rules"],
        {"select": {"component": "vae"}, "weights": {"dtype": "float32"}},
    ]
    profile = load_target(target)
    resolved = resolve(plan_from_json(value, source="p.json"), ["unet", "vae"], profile)
    notes = option_notes(resolved, profile, exported)

    assert [reason in note for note in notes] == [True] * (reason is not None)
