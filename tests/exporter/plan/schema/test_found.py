"""What a plan says of the search that found it: strict, versioned, and without effect."""

from __future__ import annotations

import pytest

from qdx.exporter.errors import InvalidPlan
from qdx.exporter.plan.differences import differences
from tests.support.plans import plan_of

RULE = {"select": {"component": "*"}, "weights": {"dtype": "float32"}}
FOUND = {
    "schema": "qdx.found/1",
    "target": "openvino",
    "analysis": "0" * 64,
    "asked": "average_bits=4",
    "weigh": "trajectory",
    "prefer": "latency_ms",
    "guidance_weight": 0.5,
    "fixed": ["first", "last"],
    "no_float": True,
    "seed": 0,
    "bytes": 1000,
    "average_bits": 4.0,
    "predicted": {"sqnr_db": 31.5, "guidance_db": None},
}


def test_it_comes_back_as_it_was_written():
    plan = plan_of(RULE, found=FOUND)

    assert plan.to_json()["found"] == {**FOUND, "predicted": {"sqnr_db": 31.5}}
    assert plan_of(RULE).found is None


def test_one_that_was_written_before_these_were_told_is_read():
    later = ("weigh", "prefer", "guidance_weight", "fixed", "no_float")
    before = {key: value for key, value in FOUND.items() if key not in later}

    found = plan_of(RULE, found=before).found
    assert [getattr(found, key) for key in later] == [None] * 5


def test_it_changes_nothing_that_is_asked():
    assert differences(plan_of(RULE, found=FOUND), plan_of(RULE)) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": "qdx.found/2"}, "qdx.found/1"),
        ({"analysis": "abc"}, "found.analysis"),
        ({"bytes": -1}, "found.bytes"),
        ({"luck": 3}, "luck"),
        ({"predicted": {"beauty": 3}}, "beauty"),
        ({"seed": None}, "found.seed"),
        ({"weigh": "luck"}, "found.weigh"),
        ({"guidance_weight": -1}, "found.guidance_weight"),
    ],
)
def test_what_is_wrong_in_it_is_named(change, words):
    with pytest.raises(InvalidPlan, match=words):
        plan_of(RULE, found={**FOUND, **change})
