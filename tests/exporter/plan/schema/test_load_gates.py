"""A file of gates alone is read as strictly as a plan."""

from __future__ import annotations

import pytest

from qdx.exporter.errors import InvalidPlan
from qdx.exporter.plan.schema.load import load_plan
from qdx.exporter.plan.schema.load_gates import load_gates, parse_gates
from qdx.exporter.strict_json import dump_json

GATES = load_plan("w8a8").gates
TEXT = dump_json(GATES.model_dump(mode="json", exclude_none=True)).decode()


def test_the_gates_of_a_plan_alone_are_those_of_the_plan(tmp_path):
    path = tmp_path / "gates.json"
    path.write_text(TEXT)

    assert load_gates(path) == GATES


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "expected an object"),
        ('{"component": {}, "pipeline": {"psnr_db_min": 20, "ssim_min": 0.7}, "speed": 1}',
         "gates.json:1:69`: unknown key `speed`"),
        ('{"component": {"sqnr_db_min": "25"}, "pipeline": {"psnr_db_min": 20, "ssim_min": 0.7}}',
         "gates.json:1:16`"),
        ('{"component": {"sqnr_db_min": NaN}}', "gates.json"),
        ('{"component": {"sqnr_db_max": 3}, "pipeline": {"psnr_db_min": 20, "ssim_min": 0.7}}',
         "unknown key `sqnr_db_max`"),
        ('{"component": {}, "component": {}}', "twice"),
    ],
)  # fmt: skip
def test_what_is_no_gates_is_refused_with_its_place(text, words):
    with pytest.raises(InvalidPlan) as caught:
        parse_gates(text, source="gates.json")

    assert words in caught.value.message


def test_malformed_gates_come_with_the_shortest_that_are_taken():
    with pytest.raises(InvalidPlan) as caught:
        parse_gates('{"pipeline": 0.9}', source="gates.json")

    assert '`{"pipeline": {"ssim_min": 0.9}}`' in caught.value.hint
    assert (
        parse_gates('{"pipeline": {"ssim_min": 0.9}}', source="gates.json").pipeline.ssim_min == 0.9
    )


def test_a_whole_plan_is_told_apart():
    with pytest.raises(InvalidPlan, match="is a plan") as caught:
        parse_gates('{"schema": "qdx.plan/1", "rules": [], "gates": {}}', source="ci.json")

    assert "--plan" in caught.value.hint


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InvalidPlan, match=r"gates\.json"):
        load_gates(tmp_path / "gates.json")
