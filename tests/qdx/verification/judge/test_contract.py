"""Whose contract judges: the bundle's own, or that of whoever verifies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qdx.exporter.errors import InvalidPlan, UsageError
from qdx.exporter.plan import load_plan, resolve
from qdx.exporter.plan.schema.load import preset_text
from qdx.targets import load_target
from qdx.verification.judge.contract import read_judge

TARGET = load_target("onnxruntime")
GATES = {"component": {"sqnr_db_min": 60}, "pipeline": {"psnr_db_min": 35, "ssim_min": 0.95}}


def write(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value))
    return path


def changed(tmp_path, change, name="ci.json"):
    """A plan file like w8a8, changed."""
    plan = json.loads(preset_text("w8a8"))
    change(plan)
    return write(tmp_path / name, plan)


def test_without_a_judge_the_bundle_judges():
    assert read_judge(None, None) is None


def test_the_gates_of_a_plan_are_settled_as_at_the_export():
    judge = read_judge("w8", None)
    assert judge is not None
    found = judge.contract(load_plan("w8"), TARGET)

    assert found.gates == resolve(load_plan("w8"), ["unet"], TARGET).gates
    assert (found.source, found.findings) == ("plan w8", ())


def test_a_file_of_gates_judges_and_what_it_leaves_unsaid_is_settled_by_the_bundles_types(tmp_path):
    asked = {"component": {}, "lowering": {}, "pipeline": GATES["pipeline"]}
    judge = read_judge(None, write(tmp_path / "gates.json", asked))
    assert judge is not None
    of_int8 = judge.contract(load_plan("w8a8"), TARGET)
    of_float = judge.contract(load_plan("float32"), TARGET)

    assert (of_int8.gates.component.sqnr_db_min, of_float.gates.component.sqnr_db_min) == (25, 80)
    assert of_int8.gates.pipeline.ssim_min == 0.95
    assert of_int8.source == "gates gates.json"


def test_levels_that_the_judge_has_no_gates_of_and_the_bundle_has_are_found(tmp_path):
    judge = read_judge(None, write(tmp_path / "gates.json", {**GATES, "audit": {}}))
    assert judge is not None

    assert judge.contract(load_plan("w8a8"), TARGET).findings == (
        "the bundle's own plan has gates of lowering, conditioning, coverage too, of which `gates gates.json` has none",
    )
    assert judge.contract(load_plan("float32"), TARGET).findings == ()


def test_only_the_name_of_a_file_is_told(tmp_path):
    judge = read_judge(changed(tmp_path, lambda p: None), None)

    assert judge is not None
    assert judge.source == "plan ci.json"


def test_both_at_once_are_refused(tmp_path):
    with pytest.raises(UsageError, match="both are given") as caught:
        read_judge("w8", write(tmp_path / "gates.json", GATES))

    assert caught.value.hint


def test_what_is_no_plan_is_refused_before_anything_is_judged(tmp_path):
    with pytest.raises(InvalidPlan, match="neither a preset nor a file"):
        read_judge("w9", None)
    with pytest.raises(InvalidPlan):
        read_judge(None, tmp_path / "nothing.json")


def rule(plan, name):
    return next(one for one in plan["rules"] if one["id"] == name)


def test_a_bundle_of_other_rules_than_the_judges_is_a_finding(tmp_path):
    path = changed(tmp_path, lambda p: rule(p, "w8a8")["weights"].update(dtype="int4"))
    judge = read_judge(path, None)
    assert judge is not None
    (finding,) = judge.contract(load_plan("w8a8"), TARGET).findings

    assert finding == (
        "the bundle was exported with another plan than `plan ci.json`, which judges it: they differ in `w8a8`"
    )
