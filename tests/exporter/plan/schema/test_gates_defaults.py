"""What a plan's gates leave out has a default, which is a gate; whole levels are absent where that is said."""

from __future__ import annotations

import json

import pytest

from qdx.exporter.errors import InvalidPlan
from qdx.exporter.plan import parse_plan, plan_from_json


def text_of(gates):
    rule = {"select": {"op": "linear"}, "weights": {"dtype": "int8"}, "inputs": {"dtype": "int8"}}
    return json.dumps({"schema": "qdx.plan/1", "rules": [rule], "gates": gates})


def gates_of(gates):
    return parse_plan(text_of(gates), source="p.json").gates


def test_one_bound_is_enough():
    gates = gates_of({"pipeline": {"ssim_min": 0.9}})

    assert (gates.pipeline.ssim_min, gates.pipeline.psnr_db_min) == (0.9, 20)
    assert gates.component.sqnr_db_min is None  # the target says how much
    assert (gates.lowering, gates.conditioning, gates.audit, gates.coverage) == (None,) * 4


def test_no_bound_is_enough():
    gates = gates_of({})

    assert (gates.pipeline.ssim_min, gates.pipeline.psnr_db_min) == (0.7, 20)


def test_each_level_that_is_named_has_bounds():
    gates = gates_of({"conditioning": {}, "audit": {}, "coverage": {}, "lowering": {}})

    assert (gates.conditioning.ratio_min, gates.conditioning.ratio_max) == (0.9, 1.1)
    assert gates.audit.executed_share_min == 0.95
    assert (gates.coverage.timesteps_share_min, gates.coverage.branches) == (1, "both")
    assert gates.lowering.sqnr_db_min is None


def test_defaults_are_written_into_the_contract_of_a_bundle():
    plan = parse_plan(text_of({"pipeline": {"ssim_min": 0.9}}), source="p.json")
    stored = plan.to_json()

    assert stored["gates"] == {"component": {}, "pipeline": {"psnr_db_min": 20, "ssim_min": 0.9}}
    assert plan_from_json(stored, source="qdx.json").gates == plan.gates


@pytest.mark.parametrize("gates", [None, [], 0.9, {"pipeline": 0.9}])
def test_malformed_gates_come_with_a_minimal_example(gates):
    with pytest.raises(InvalidPlan) as raised:
        gates_of(gates)

    assert '`"gates": {"pipeline": {"ssim_min": 0.9}}`' in raised.value.hint
    gates_of(json.loads('{"pipeline": {"ssim_min": 0.9}}'))


def test_missing_gates_do_too():
    with pytest.raises(InvalidPlan, match="key `gates` is missing in the plan") as raised:
        parse_plan('{"schema": "qdx.plan/1", "rules": [{"keep": "float32"}]}', source="p.json")

    assert '`"gates": {}`' in raised.value.hint
