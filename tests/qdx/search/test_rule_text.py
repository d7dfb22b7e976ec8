"""What rules say of an option."""

from __future__ import annotations

import pytest

from qdx.analyze.analysis import Option
from qdx.analyze.option_text import parse_option
from qdx.exporter.plan.schema.load import plan_from_json
from qdx.search.rule_text import said


@pytest.mark.parametrize(
    "text", ["palette2", "palette4:group16", "int4:block32", "int3*1.15", "int8", "nvfp4", "mxfp8"]
)
def test_an_option_that_was_read_from_an_analysis_is_a_rule_of_a_plan(text):
    option = parse_option(text)
    read = Option.model_validate_json(option.model_dump_json())

    assert said(read.weights) == said(option.weights)
    rule = {"select": {"component": "unet"}, "weights": said(read.weights)}
    plan = plan_from_json({"schema": "qdx.plan/1", "rules": [rule], "gates": {}}, source="found")
    assert plan.rules[0].weights == option.weights


def test_so_are_inputs():
    option = parse_option("float8_e4m3fn/float8_e4m3fn")
    read = Option.model_validate_json(option.model_dump_json())

    rule = {
        "select": {"component": "unet"},
        "weights": said(read.weights),
        "inputs": said(read.inputs),
    }
    plan = plan_from_json({"schema": "qdx.plan/1", "rules": [rule], "gates": {}}, source="found")
    assert plan.rules[0].inputs == option.inputs
