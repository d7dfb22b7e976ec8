"""An analysis is of a plan whatever its gates and words."""

from __future__ import annotations

import pytest

from qdx.analyze.plan_digest import plan_digest
from qdx.exporter.plan.schema.load import load_plan, plan_from_json

BASE = load_plan("w8a8")


@pytest.mark.parametrize(
    "change", [{"gates": {"component": {"sqnr_db_min": 30}}}, {"description": "another one"}]
)
def test_gates_and_words_change_nothing(change):
    assert plan_digest(plan_from_json({**BASE.to_json(), **change}, source="x")) == plan_digest(
        BASE
    )


@pytest.mark.parametrize(
    "change",
    [
        {"options": {"smoothing": {"alpha": 0.5}}},
        {"calibration": {"samples": 3}},
        {"rules": BASE.to_json()["rules"][:1]},
        {"name": "another"},
    ],
)
def test_all_else_does(change):
    assert plan_digest(plan_from_json({**BASE.to_json(), **change}, source="x")) != plan_digest(
        BASE
    )
