"""What an export says of a package that is right."""

from __future__ import annotations

import pytest

from qdx.backends.coreml.backend import CoreMlBackend
from qdx.exporter.plan import load_plan, plan_from_json, resolve
from qdx.targets import load_target

MIXED = {
    "schema": "qdx.plan/1",
    "options": {"mixed_precision": True},
    "rules": [{"weights": {"dtype": "float16"}}],
    "gates": {"component": {"sqnr_db_min": 10}, "pipeline": {"psnr_db_min": 10, "ssim_min": 0.1}},
}


@pytest.mark.parametrize(
    ("target", "plan", "said"),
    [
        ("coreml", "float32", True),
        ("iphone-a17", "float32", True),
        ("iphone-a17", "w8", False),
        ("coreml", "float16", False),
        ("mac-gpu", "float32", False),
    ],
)
def test_float32_never_runs_on_the_neural_engine(target: str, plan: str, said: bool) -> None:
    profile = load_target(target)
    resolved = resolve(load_plan(plan), ["unet", "vae"], profile)
    notes = CoreMlBackend().notes(resolved, profile, ["unet"])

    assert [note.startswith("`unet`: float32 never runs") for note in notes] == [True] * said


@pytest.mark.parametrize(("target", "said"), [("coreml", True), ("mac-gpu", False)])
def test_what_is_between_products_does_not_either(target: str, said: bool) -> None:
    profile = load_target(target)
    resolved = resolve(plan_from_json(MIXED, source="p.json"), ["unet", "vae"], profile)
    notes = CoreMlBackend().notes(resolved, profile, ["unet"])

    assert ["`unet`: in mixed precision" in note for note in notes] == [True] * said
