"""Names that no operation can have are found without a model; those of closed vocabularies are all that there are."""

from __future__ import annotations

import json

import pytest

from qdx.exporter.errors import InvalidPlan
from qdx.exporter.graph.analysis import roles, sites
from qdx.exporter.graph.ir.site import OPERATIONS, ROLES
from qdx.exporter.plan import list_presets, load_plan, parse_plan, plan_from_json

GATES = {"component": {}, "pipeline": {}}


def text_of(**select):
    rule = {"select": select, "weights": {"dtype": "int8"}}
    return json.dumps({"schema": "qdx.plan/1", "rules": [rule], "gates": GATES})


UNKNOWN = [
    ({"role": ["attn.q", "attnetion.q"]}, "`attnetion.q` is not a role; roles are `first`, `last`", "did you mean `attn.q`?"),
    ({"role": "attention.*"}, "`attention.*` matches no role; roles are", "`qdx inspect MODEL --sites` lists"),
    ({"role": "Q"}, "`Q` is not a role", "`qdx inspect MODEL --sites` lists"),
    ({"op": "lineer"}, "`lineer` is not an operation; operations are `conv1d`", "did you mean `linear`?"),
    ({"op": "Conv2d"}, "`Conv2d` is not an operation", "did you mean `conv2d`?"),
    ({"op": "conv4?"}, "`conv4?` matches no operation", "did you mean"),
    ({"stage": "midd"}, "`midd` is not a stage; stages are `down.0`, `mid`, `up.0` or `block.0`", "did you mean `mid`?"),
    ({"stage": "encoder"}, "`encoder` is not a stage", "`qdx inspect MODEL --sites` lists"),
    ({"stage": "down"}, "`down` is not a stage", "did you mean `down"),
    ({"stage": "down_blocks.*"}, "`down_blocks.*` matches no stage", "did you mean"),
]  # fmt: skip


@pytest.mark.parametrize(("select", "words", "hint"), UNKNOWN, ids=[str(one[0]) for one in UNKNOWN])
def test_a_name_that_nothing_can_have_is_refused_with_its_place(select, words, hint):
    with pytest.raises(InvalidPlan) as raised:
        parse_plan(text_of(**select), source="p.json")

    key = next(iter(select))
    column = text_of(**select).index(f'"{key}"') + 1
    assert raised.value.message.startswith(f"`p.json:1:{column}`: {words}")
    assert hint in raised.value.hint


@pytest.mark.parametrize(
    "select",
    [{"role": "attn.*"}, {"role": "attn.?"}, {"op": "conv*"}, {"op": "*"}, {"stage": "down.*"},
     {"stage": "block.17"}, {"stage": "block.5000"}, {"stage": "*"}, {"stage": ["mid", "up.?"]}],
    ids=str,
)  # fmt: skip
def test_a_name_that_something_can_have_is_taken(select):
    parse_plan(text_of(**select), source="p.json")


def test_the_presets_name_what_there_is():
    for name in list_presets():
        load_plan(name)


def test_a_finished_bundle_keeps_its_plan():
    plan_from_json(json.loads(text_of(role=["first", "frist"])), source="qdx.json")


def test_the_vocabularies_are_those_of_the_analysis():
    assert set(roles._ATTENTION_INPUTS.values()) < set(ROLES)
    assert sites._CONVOLUTIONS | sites._NORMS.keys() < set(OPERATIONS)
