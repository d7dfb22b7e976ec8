"""The cheapest assignment whose finished pictures hold."""

from __future__ import annotations

import math

import numpy as np
import pytest

from qdx.exporter.errors import TargetRefusal
from qdx.search.by_call import NoiseByCall, mean_noise
from qdx.search.judged import cheapest_held
from qdx.search.pareto import decibels
from qdx.search.solve import Objective, budget_rows, solve
from qdx.search.verdict import GateResult, Verdict
from tests.support.searching import assignments, drawn, problem

CHEAP = Objective({"prediction": 1.0}, "bytes")
FEW = 12


def verdict(sqnr_db, bound=25.0, ratio=1.0, margin_db=0.0):
    """A verdict with a gate in decibels and another."""
    gates = (
        GateResult("unet.sqnr_db", sqnr_db, bound, "at least"),
        GateResult("unet.conditioning.ratio_max", ratio, 1.1, "at most"),
    )
    return Verdict(gates, margin_db=margin_db)


def judging(one, shift_db=0.0, **more):
    """Judges by the additive noise, some decibels from where it is; tells what it was asked."""
    asked = []

    def judge(assignment):
        asked.append(assignment)
        return verdict(min(decibels(one.noise(assignment)), 200.0) + shift_db, **more)

    return judge, asked


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("shift_db", [-9.0, 0.0, 4.0])
def test_the_cheapest_that_holds_is_found_with_few_exports(seed, shift_db):
    one = drawn(seed)
    judge, asked = judging(one, shift_db)
    found = cheapest_held(one, CHEAP, (), judge, mean_noise(one), start_db=25.0)

    cheapest = min(
        one.cost(a, "bytes") for a in assignments(one) if decibels(one.noise(a)) + shift_db >= 25.51
    )
    assert found.verdict.ok
    assert one.cost(found.assignment, "bytes") <= cheapest
    assert len(asked) == len(set(asked)) == found.judged <= FEW


def test_a_gate_that_is_not_in_decibels_decides_too():
    one = drawn(1)

    def judge(assignment):
        noise = one.noise(assignment)
        return verdict(min(decibels(noise), 200.0), ratio=1.0 + 100 * noise)

    found = cheapest_held(one, CHEAP, (), judge, mean_noise(one), start_db=25.0)
    assert 0 < one.noise(found.assignment) <= 1e-3
    assert found.judged <= FEW


def test_a_margin_is_held_beyond_the_gates():
    one = drawn(2)
    judge, _ = judging(one, margin_db=6.0)
    found = cheapest_held(one, CHEAP, (), judge, mean_noise(one), start_db=25.0)

    assert decibels(one.noise(found.assignment)) >= 31


def test_what_costs_least_may_hold():
    one = drawn(2)
    found = cheapest_held(one, CHEAP, (), lambda _: verdict(60.0), mean_noise(one), start_db=25.0)
    assert found.assignment == solve(one, CHEAP)


def test_a_gate_that_nothing_holds_is_refused_with_what_the_finest_fails():
    one = drawn(2)
    judge, asked = judging(one, shift_db=-190.0)

    with pytest.raises(TargetRefusal) as refused:
        cheapest_held(one, CHEAP, (), judge, mean_noise(one), start_db=25.0)
    assert refused.value.exit_code == 3
    assert [place.site for place in refused.value.refusals] == ["unet.sqnr_db"]
    assert "10, expected at least 25" in refused.value.refusals[0].reason
    assert len(asked) <= FEW


def test_budgets_bound_what_is_judged():
    one = drawn(2)
    rows = budget_rows(one, {"average_bits": 5.0})
    judge, asked = judging(one, shift_db=-60.0)

    with pytest.raises(TargetRefusal, match="that the budgets allow"):
        cheapest_held(one, CHEAP, rows, judge, mean_noise(one), start_db=25.0)
    assert all(one.average_bits(each) <= 5 for each in asked)


def test_no_number_is_on_no_side_of_a_bound():
    for sense in ("at least", "at most"):
        assert not GateResult("x", math.nan, 0.0, sense).held()
    assert not Verdict(()).ok


def test_the_worst_call_bounds_what_is_proposed():
    one = problem([1.0, 1.0], bits=(32, 8))
    # Both lose the same on average; the first all of it in one call.
    noise = NoiseByCall({(0, 1): np.array([2e-3, 0.0]), (1, 1): np.array([1e-3, 1e-3])})
    chosen = solve(one, CHEAP, noise.rows(one, 28.0))

    assert chosen == (0, 1)
    assert noise.worst(one, (1, 1)) == pytest.approx(3e-3)
    assert solve(one, CHEAP, noise.rows(one, 25.0)) == (1, 1)
