"""Inputs that change over the schedule as rules: what is written resolves to what was meant."""

from __future__ import annotations

import random

import pytest

from qdx.analyze.analysis import Option
from qdx.exporter.errors import InternalError
from qdx.exporter.files import dump_json
from qdx.exporter.plan import AskedInputs, AskedWeights, parse_plan
from qdx.search.write_plan import write_plan
from qdx.search.write_timesteps import write_timesteps
from tests.support.plans import plan_of
from tests.support.searching import SITES, pipeline

PIPELINE = pipeline()
STEPS = ((0.0, 0.2), (0.2, 0.7), (0.7, 1.0))
WEIGHTS = AskedWeights(dtype="int8", granularity="channel")
OPTIONS = (
    Option(id=0, label="float", weights=None, inputs=None),
    *(
        Option(id=number, label=f"int8 / int{bits}", weights=WEIGHTS, inputs=AskedInputs(dtype=f"int{bits}", observer="mse"))
        for number, bits in enumerate((4, 5, 6), 1)
    ),
)  # fmt: skip
BASE = plan_of(
    {"select": {"component": "*"}, "weights": {"dtype": "float32"}},
    calibration={"timestep_groups": 10},
)
CHOSEN = [one for one in SITES["unet.forward"] if one.op in {"conv2d", "linear"}]
FLOAT = {one.key for one in CHOSEN if one.role in {"first", "last", "time_embed"}}


def why(option, sites, segment=None):
    return f"{len(sites)} take {option.label} in {segment}"


def written(timed, steps=STEPS):
    """The plan of operations that change, with all others float."""
    always = {("unet.forward", one.key): timed.get(("unet", one.key), (0,))[0] for one in CHOSEN}
    plan = write_plan(
        BASE, PIPELINE, OPTIONS, always, name="found", description="words", why=why
    )  # fmt: skip
    return write_timesteps(plan, PIPELINE, OPTIONS, timed, steps, why)


def check(plan, timed):
    resolved = PIPELINE.resolved(plan)
    for one in CHOSEN:
        found = resolved.site("unet.forward", one.key)
        wanted = timed.get(("unet", one.key))
        if wanted is None:
            assert not found.segments, one.key
            continue
        assert found.quantized_weights.dtype == "int8"
        assert [groups for groups, _ in found.segments] == [range(2), range(2, 7), range(7, 10)]
        assert [inputs.dtype for _, inputs in found.segments] == [
            OPTIONS[option].inputs.dtype for option in wanted
        ]
    again = parse_plan(dump_json(plan.to_json()).decode(), source="again")
    assert again.to_json() == plan.to_json()


def timed_with(options_of):
    return {("unet", one.key): options_of(one) for one in CHOSEN if one.key not in FLOAT}


@pytest.mark.parametrize("seed", range(2))
def test_what_changes_at_random_comes_back_from_its_plan(seed):
    generator = random.Random(seed)
    timed = timed_with(lambda _: tuple(generator.choice([1, 2, 3]) for _ in STEPS))
    check(written(timed), timed)


def test_regular_changes_are_few_rules_with_reasons():
    timed = timed_with(lambda one: (3, 2, 1) if one.op == "conv2d" else (3, 1, 1))
    plan = written(timed)
    check(plan, timed)

    spans = [rule.select.timesteps for rule in plan.rules if rule.select.timesteps]
    assert sorted(set(spans)) == [(0.0, 0.2), (0.2, 0.7), (0.7, 1.0)]
    assert all(rule.why for rule in plan.rules if rule.select.timesteps)
    assert all(rule.select.name is None for rule in plan.rules)
    assert all(rule.inputs is None or rule.select.timesteps for rule in plan.rules)


def test_the_same_type_at_all_timesteps_has_ranges_of_its_own_in_every_segment():
    timed = timed_with(lambda _: (1, 1, 1))
    check(written(timed), timed)


def test_edges_that_are_no_decimals_are_those_of_the_groups():
    steps = ((0.0, 1 / 30), (1 / 30, 14 / 30), (14 / 30, 1.0))
    base = plan_of(
        {"select": {"component": "unet", "role": "last"}, "weights": {"dtype": "int8"}, "inputs": {"dtype": "int4"}},
        calibration={"timestep_groups": 30},
    )  # fmt: skip
    timed = {("unet", "conv_out"): (1, 2, 3)}
    plan = write_timesteps(base, PIPELINE, OPTIONS, timed, steps, why)

    found = PIPELINE.resolved(plan).site("unet.forward", "conv_out")
    assert [groups for groups, _ in found.segments] == [range(1), range(1, 14), range(14, 30)]


def test_what_the_target_refuses_is_not_written():
    options = (*OPTIONS[:2], OPTIONS[2].model_copy(update={"inputs": AskedInputs(dtype="uint5")}))
    base = plan_of({"select": {"component": "unet", "role": "last"}, "weights": {"dtype": "int8"}})

    with pytest.raises(InternalError, match="refuses inputs that change"):
        write_timesteps(
            base, PIPELINE, options, {("unet", "conv_out"): (1, 2)}, ((0.0, 0.5), (0.5, 1.0)), why
        )
