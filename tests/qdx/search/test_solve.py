"""The integer program, held against every assignment of small problems."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qdx.exporter.errors import TargetRefusal, UsageError
from qdx.search.problem import by_timestep
from qdx.search.solve import Objective, budget_rows, noise_rows, solve
from tests.support.searching import assignments, drawn, part, problem

NOISE = Objective({"prediction": 1.0})


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("bits", [3.0, 5.0, 12.0])
def test_it_finds_what_trying_everything_finds(seed, bits):
    one = drawn(seed)
    found = solve(one, NOISE, budget_rows(one, {"average_bits": bits}))

    best = min(one.noise(a) for a in assignments(one) if one.average_bits(a) <= bits)
    assert one.average_bits(found) <= bits
    assert one.noise(found) == pytest.approx(best, rel=1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_several_bounds_hold_together(seed):
    one = drawn(seed)
    demands = budget_rows(one, {"average_bits": 9, "latency_ms": 1.7})
    demands += noise_rows(one, {"guidance": 20})

    def holds(assignment):
        return (
            one.average_bits(assignment) <= 9
            and one.cost(assignment, "latency_ms") <= 1.7
            and one.noise(assignment, "guidance") <= 0.01
        )

    fine = [one.noise(a) for a in assignments(one) if holds(a)]
    if not fine:
        with pytest.raises(TargetRefusal):
            solve(one, NOISE, demands)
        return
    found = solve(one, NOISE, demands)
    assert holds(found)
    assert one.noise(found) == pytest.approx(min(fine), rel=1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_the_cheapest_that_holds_a_goal_is_found(seed):
    one = drawn(seed)
    found = solve(one, Objective({"prediction": 1.0}, "bytes"), noise_rows(one, {"prediction": 30}))

    fine = [one.cost(a, "bytes") for a in assignments(one) if one.noise(a) <= 1e-3]
    assert one.noise(found) <= 1e-3
    assert one.cost(found, "bytes") == pytest.approx(min(fine))


def test_tiny_noise_is_told_apart_from_none():
    """Absolute tolerances of a solver would take 1e-12 for 2e-12."""
    one = problem([1e-9, 2e-9, 4e-9, 8e-9])

    found = solve(one, NOISE, budget_rows(one, {"average_bits": 5}))
    best = min(one.noise(a) for a in assignments(one) if one.average_bits(a) <= 5)
    assert one.noise(found) == pytest.approx(best, rel=1e-5)


def test_a_budget_is_kept_to_the_byte():
    one = drawn(3, count=40)
    for most in (20_000, 20_001, 33_333):
        assert one.cost(solve(one, NOISE, budget_rows(one, {"bytes": most})), "bytes") <= most


def test_a_sensitive_layer_keeps_its_bits_and_a_free_one_has_the_fewest():
    one = problem([1.0, 1.0, 5000.0, 1e-9, 1.0])

    found = solve(one, NOISE, budget_rows(one, {"average_bits": 4.4}))
    assert found == (2, 2, 1, 3, 2)


def test_the_same_problem_has_the_same_solution():
    one = problem([1.0] * 12)
    rows = budget_rows(one, {"average_bits": 5})

    assert len({solve(one, NOISE, rows) for _ in range(5)}) == 1


def test_a_budget_that_cannot_be_met_names_the_least_that_can_and_what_is_in_the_way():
    one = problem([1.0, 1.0], elements=[1000, 9000])
    one = replace(one, parts=(one.parts[0], replace(one.parts[1], choices=one.parts[1].choices[:1], why_few="the target offers nothing but float")))  # fmt: skip

    with pytest.raises(TargetRefusal) as caught:
        solve(one, NOISE, budget_rows(one, {"average_bits": 4}))
    assert caught.value.exit_code == 3
    assert "average_bits=4 cannot be met: the least that can is 29" in caught.value.message
    assert caught.value.refusals[0].site == "unet.layer.1"
    assert "nothing but float" in caught.value.refusals[0].reason


def test_a_speedup_that_cannot_be_met_names_the_most_that_can():
    one = problem([1.0] * 4)

    with pytest.raises(TargetRefusal, match="speedup=20 cannot be met: the most that can is 16"):
        solve(one, NOISE, budget_rows(one, {"speedup": 20}))


def test_demands_that_can_be_met_alone_and_not_together_say_so():
    one = problem([1.0] * 4)
    rows = [*budget_rows(one, {"average_bits": 3}), *noise_rows(one, {"prediction": 60})]

    with pytest.raises(TargetRefusal, match="can be met alone"):
        solve(one, NOISE, rows)


def test_a_cost_that_the_analysis_does_not_know_is_wrong_usage():
    one = problem([1.0])
    choices = tuple(replace(c, costs={"bytes": c.costs["bytes"]}) for c in one.parts[0].choices)
    one = replace(one, parts=(replace(one.parts[0], choices=choices),))

    with pytest.raises(UsageError, match="latency_ms"):
        budget_rows(one, {"speedup": 2})
    with pytest.raises(UsageError, match="no other noise"):
        noise_rows(one, {"other": 3})


def test_what_no_part_changes_counts_in_the_latency():
    one = replace(problem([1.0, 1.0]), fixed={"latency_ms": 1.0})
    found = solve(one, NOISE, budget_rows(one, {"latency_ms": 1.5}))

    assert one.cost(found, "latency_ms") <= 1.5
    with pytest.raises(TargetRefusal, match=r"the least that can is 1\.125"):
        solve(one, NOISE, budget_rows(one, {"latency_ms": 1.1}))


def test_inputs_may_differ_by_timestep_and_weights_may_not():
    """Weights of 8 bits with inputs of 8 or 4, and weights of 4 with inputs of 4."""
    base = part(0)
    kinds = {0: "float", 1: "eight", 2: "eight", 3: "four"}
    choices = tuple(replace(c, tie=kinds[c.option]) for c in base.choices)
    one = replace(problem([1.0]), parts=(replace(base, choices=choices),))
    loud, quiet = [
        [replace(c, noise={"prediction": noise}) for c, noise in zip(choices, noises, strict=True)]
        for noises in ((0.0, 1.0, 50.0, 60.0), (0.0, 1.0, 1.5, 1.2))
    ]
    both = by_timestep(one, [(0, 0.5), (0.5, 1)], {0: [loud, quiet]}, one.labels)

    found = solve(both, NOISE, budget_rows(both, {"bit_operations": 6}))
    # Least is eight-bit weights throughout, with narrow inputs where they are quiet; four-bit ones there would be less alone.
    assert found == (1, 2)
    assert both.cost(found, "bytes") == one.cost((1,), "bytes")
