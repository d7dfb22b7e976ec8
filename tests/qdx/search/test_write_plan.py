"""Assignments as plans: what is written resolves to what was meant."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qdx.exporter.errors import InternalError
from qdx.exporter.files import dump_json
from qdx.exporter.plan import load_plan, parse_plan
from qdx.search.write_plan import options_of_base, write_plan
from tests.support.plans import plan_of
from tests.support.searching import OPTIONS, SITES, analysis, options_for, pipeline

PIPELINE = pipeline()
BASE = load_plan("w8a8")
CHOSEN = [one for one in SITES["unet.forward"] if one.op != "group_norm"]


def assigned(option_of):
    return {("unet.forward", one.key): option_of(one) for one in CHOSEN}


def written(assignment, base=BASE, options=OPTIONS, why=lambda _, sites: f"{len(sites)} of them"):
    return write_plan(
        base, PIPELINE, options, assignment, name="found", description="words", why=why
    )


def outcome(plan, where, key):
    one = PIPELINE.resolved(plan).site(where, key)
    weights = one.quantized_weights
    inputs = [scheme for _, scheme in one.segments]
    return (
        None if weights is None else (weights.dtype, weights.block),
        None if not inputs else (inputs[0].dtype, inputs[0].symmetric),
    )


EXPECTED = {
    0: (None, None),
    1: (("int8", None), None),
    2: (("int8", None), ("int8", False)),
    3: (("int4", 32), None),
    4: (None, ("int8", True)),
}


def check(plan, assignment):
    for (where, key), option in assignment.items():
        assert outcome(plan, where, key) == EXPECTED[option], key
    assert outcome(plan, "vae.decode", "conv") == outcome(BASE, "vae.decode", "conv")
    again = parse_plan(dump_json(plan.to_json()).decode(), source="again")
    assert again.to_json() == plan.to_json()


def check_drawn(seed, regular):
    """An assignment from fully at random to one option for each role."""
    generator = random.Random(seed)
    of = {}

    def option(one):
        own = generator.choice(options_for(one))
        shared = of.setdefault((one.role, one.op), own)
        return shared if generator.random() < regular else own

    assignment = assigned(option)
    check(written(assignment), assignment)


@pytest.mark.parametrize("regular", [0.0, 0.8])
def test_an_assignment_at_random_comes_back_from_its_plan(regular):
    check_drawn(0, regular)


@pytest.mark.slow
@given(seed=st.integers(0, 2**32), regular=st.floats(0, 1))
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_assignment_comes_back_from_its_plan(seed, regular):
    check_drawn(seed, regular)


def test_a_regular_assignment_is_a_short_plan_with_reasons():
    assignment = assigned(
        lambda one: (
            4
            if one.op in {"qk", "pv"}
            else 0
            if one.role in {"first", "last"}
            else 3
            if one.role == "ff.in"
            else 2
        )
    )
    plan = written(assignment)
    check(plan, assignment)

    assert len(plan.rules) <= 5
    assert all(rule.why for rule in plan.rules)
    assert all(rule.select.name is None for rule in plan.rules)


def test_a_rule_says_how_many_operations_it_decides_in_the_end():
    assignment = assigned(
        lambda one: 4 if one.op in {"qk", "pv"} else 0 if one.role == "last" else 1
    )
    plan = written(assignment)

    counts = {rule.id: rule.why for rule in plan.rules if rule.why.endswith("of them")}
    assert sorted(counts.values()) == ["55 of them", "8 of them"]


def test_everything_float_is_a_plan_too():
    plan = written(assigned(lambda _: 0))
    check(plan, assigned(lambda _: 0))

    assert plan.gates.audit is None
    assert plan.gates.coverage is None


def test_gates_and_options_are_those_of_the_base():
    plan = written(assigned(lambda one: 4 if one.op in {"qk", "pv"} else 2))

    assert plan.gates == BASE.gates
    assert plan.calibration == BASE.calibration


def test_rules_of_other_components_and_what_is_not_assigned_stay():
    base = plan_of(
        {"select": {"component": "*"}, "weights": {"dtype": "float32"}},
        {"id": "vae", "select": {"component": "vae"}, "weights": {"dtype": "int8"}},
        {
            "id": "ends",
            "select": {"component": "unet", "role": "last"},
            "weights": {"dtype": "int8"},
        },
    )
    some = {place: 3 for place in assigned(lambda _: 3) if place[1].endswith("ff.net.2")}
    plan = written(some, base)

    assert outcome(plan, "vae.decode", "conv") == (("int8", None), None)
    assert outcome(plan, "unet.forward", "conv_out") == (("int8", None), None)
    assert outcome(plan, "unet.forward", "conv_in") == (None, None)
    assert {outcome(plan, *place) for place in some} == {EXPECTED[3]}


def test_the_plan_that_holds_already_is_known_by_its_options():
    groups = analysis().groups
    found = options_of_base(written(assigned(lambda one: 4 if one.op in {"qk", "pv"} else 1)), PIPELINE, OPTIONS, groups)  # fmt: skip

    assert found == tuple(4 if group.op in {"qk", "pv"} else 1 for group in groups)


def test_what_no_option_says_is_none():
    base = plan_of({"select": {"component": "unet", "op": "linear"}, "weights": {"dtype": "int4", "granularity": "block", "block": 64}})  # fmt: skip
    found = options_of_base(base, PIPELINE, OPTIONS, analysis().groups)

    assert {option for group, option in zip(analysis().groups, found, strict=True) if group.op == "linear"} == {None}  # fmt: skip


def test_a_short_plan_that_means_something_else_is_a_defect(monkeypatch):
    monkeypatch.setattr("qdx.search.write_plan.cover", lambda _: ())

    with pytest.raises(InternalError, match="otherwise than meant"):
        written(assigned(lambda _: 0))


def test_the_same_assignment_is_written_the_same():
    generator = random.Random(3)
    assignment = assigned(lambda one: generator.choice(options_for(one)))

    assert written(assignment).to_json() == written(assignment).to_json()


@pytest.mark.parametrize("smoothing", [None, {"alpha": 0.5}])
def test_gates_and_options_of_the_base_are_those_of_the_plan(smoothing):
    data = BASE.to_json() | ({"options": {"smoothing": smoothing}} if smoothing else {})
    base = parse_plan(dump_json(data).decode(), source="base")
    # The base's own rules would be in the way here.
    plan = written(
        assigned(lambda one: 0 if one.role in {"attn.qk", "attn.pv", "attn.out"} else 2), base=base
    )

    assert {"audit", "coverage"} <= plan.to_json()["gates"].keys()
    assert plan.gates == base.gates
    assert plan.options == base.options
