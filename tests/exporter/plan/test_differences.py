"""What two plans ask differently, beside their gates and their words."""

from __future__ import annotations

import json

import pytest

from qdx.exporter.plan import load_plan
from qdx.exporter.plan.differences import differences
from qdx.exporter.plan.schema.load import preset_text


def rule(plan, name):
    return next(one for one in plan["rules"] if one["id"] == name)


CHANGES = {
    "nothing": (lambda p: None, []),
    "other gates": (lambda p: p.update(gates={"pipeline": {"psnr_db_min": 35}}), []),
    "other words": (lambda p: (p.update(name="ci", description="x"), rule(p, "w8a8").update(why="x")), []),
    "a dtype": (lambda p: rule(p, "w8a8")["weights"].update(dtype="int4"), ["w8a8"]),
    "a rule less": (lambda p: p["rules"].pop(1), ["attention"]),
    "a rule more": (lambda p: p["rules"].append({"select": {"role": "norm"}, "keep": "float"}), ["rules[4]"]),
    "another order": (lambda p: p["rules"].append(p["rules"].pop(0)), ["the order of the rules"]),
    "calibration": (lambda p: p.update(calibration={"samples": 9}), ["calibration"]),
    "options": (lambda p: p.update(options={"bias_correction": True}), ["options"]),
}  # fmt: skip


@pytest.mark.parametrize("case", CHANGES)
def test_plans_differ_in_what_they_ask_beside_gates(tmp_path, case):
    change, names = CHANGES[case]
    plan = json.loads(preset_text("w8a8"))
    change(plan)
    path = tmp_path / "ci.json"
    path.write_text(json.dumps(plan))

    assert differences(load_plan("w8a8"), load_plan(path)) == names
