"""What a search is held against."""

from __future__ import annotations

from collections import Counter

from qdx.search.controls import permuted, uniform
from qdx.search.solve import Objective, budget_rows, solve
from tests.support.searching import drawn, problem

NOISE = Objective({"prediction": 1.0})


def test_permuted_options_are_the_same_ones_elsewhere():
    one = problem([10.0**place for place in range(8)])
    rows = budget_rows(one, {"average_bits": 6})
    found = solve(one, NOISE, rows)

    for other in permuted(one, found, rows, seed=0):
        assert Counter(other) == Counter(found)
        assert other != found
        assert one.noise(other) > one.noise(found)


def test_permuted_options_keep_the_budget_and_spend_it():
    one = drawn(3, count=30)
    rows = budget_rows(one, {"average_bits": 6})
    found = solve(one, NOISE, rows)
    others = permuted(one, found, rows, seed=1)

    assert len(others) == 3
    for other in others:
        assert 5.5 < one.average_bits(other) <= 6


def test_draws_follow_the_seed():
    one = drawn(3, count=30)
    rows = budget_rows(one, {"average_bits": 6})
    found = solve(one, NOISE, rows)

    assert permuted(one, found, rows, seed=1) == permuted(one, found, rows, seed=1)
    assert permuted(one, found, rows, seed=1) != permuted(one, found, rows, seed=2)


def test_the_uniform_option_is_the_finest_within_the_budget():
    one = drawn(3)

    assert uniform(one, budget_rows(one, {"average_bits": 7})) == (2, (2,) * 6)
    assert uniform(one, budget_rows(one, {"average_bits": 8})) == (1, (1,) * 6)
    assert uniform(one, budget_rows(one, {"average_bits": 1})) is None
