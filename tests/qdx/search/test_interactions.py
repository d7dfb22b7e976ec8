"""Inner products of errors: the noise of options together, from single measurements."""

from __future__ import annotations

import numpy as np
import pytest

from qdx.exporter.errors import InternalError
from qdx.search.descend import descend
from qdx.search.from_analysis import problem_of
from qdx.search.interactions import Interactions, errors_from
from qdx.search.solve import Objective, budget_rows, solve
from tests.support.searching import analysis, assignments, correlated, drawn, together

NOISE = Objective({"prediction": 1.0})


@pytest.mark.parametrize("seed", range(8))
def test_it_comes_close_to_what_trying_everything_finds(seed):
    one = drawn(seed, count=5)
    errors = correlated(one, seed)
    rows = budget_rows(one, {"average_bits": 5})
    start = solve(one, NOISE, rows)
    found = descend(one, errors, start, rows)

    best = min(together(one, errors, a) for a in assignments(one) if one.average_bits(a) <= 5)
    assert one.average_bits(found) <= 5
    assert together(one, errors, found) <= together(one, errors, start)
    assert together(one, errors, found) <= 1.3 * best


def test_it_is_no_better_than_the_additive_model_where_nothing_has_to_do_with_anything():
    one = drawn(1, count=6)
    rows = budget_rows(one, {"average_bits": 5})
    start = solve(one, NOISE, rows)
    apart = np.zeros((24, 24))
    for place, choice in enumerate(c for part in one.parts for c in part.choices):
        apart[place, place] = choice.noise["prediction"] ** 0.5

    assert one.noise(descend(one, Interactions(apart), start, rows)) == pytest.approx(one.noise(start), rel=1e-4)  # fmt: skip


def test_without_a_share_of_the_products_it_is_the_additive_model():
    one = drawn(2, count=6)
    rows = budget_rows(one, {"average_bits": 5})
    start = solve(one, NOISE, rows)

    found = descend(one, correlated(one, 2), start, rows, share=0.0)
    assert one.noise(found) == pytest.approx(one.noise(start), rel=1e-4)


def test_errors_of_another_problem_are_a_defect():
    one = drawn(1, count=6)

    with pytest.raises(InternalError, match="not those"):
        descend(one, Interactions(np.zeros((3, 4))), (0,) * 6, [])


def test_errors_are_those_of_the_choices_that_are_left():
    read = analysis()
    one = problem_of(read)
    shape = (len(read.groups), len(read.options), 7)
    errors = np.random.default_rng(0).standard_normal(shape)
    found = errors_from(read, {"prediction": {"unet.forward": errors}})(one, Objective({"prediction": 4.0}))  # fmt: skip

    rows = [(p.group, c.option) for p in one.parts for c in p.choices]
    for (group, option), row in zip(rows, found.errors, strict=True):
        expected = np.zeros(7) if option == 0 else 2 * errors[group, option]
        assert np.allclose(row, expected)


def test_noise_without_errors_is_a_defect():
    read = analysis()
    errors = np.full((len(read.groups), len(read.options), 7), np.nan)

    with pytest.raises(InternalError, match="no errors"):
        errors_from(read, {"prediction": {"unet.forward": errors}})(problem_of(read), NOISE)
