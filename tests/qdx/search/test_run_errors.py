"""Errors of one run's steps added up."""

from __future__ import annotations

import numpy as np
import pytest

from qdx.exporter.errors import InternalError
from qdx.search.run_errors import RunErrors, split

RUNS = RunErrors(samples=(0, 1, 0, 1), groups=(0, 0, 1, 2))


def test_errors_of_one_run_are_added_up_and_those_of_two_stand_side_by_side():
    errors = np.array([1.0, 2, 10, 20, 3, 4, 30, 40], dtype=np.float32)

    assert RUNS.summed(errors).tolist() == [4, 6, 40, 60]


def test_what_stays_the_same_grows_and_what_changes_sign_is_gone():
    same = RUNS.summed(np.array([1.0, 0, 1, 0, 1, 0, 1, 0]))
    turned = RUNS.summed(np.array([1.0, 0, 1, 0, -1, 0, -1, 0]))

    assert same @ same == 8
    assert turned @ turned == 0


def test_of_segments_is_the_squared_sum_between_any_two_edges():
    generator = np.random.default_rng(0)
    errors = generator.standard_normal((4, 5))
    found = RUNS.of_segments(errors.reshape(-1), 3)

    for first in range(3):
        for end in range(first + 1, 4):
            total = 0.0
            for run in (0, 1):
                inside = [
                    one
                    for sample, group, one in zip(RUNS.samples, RUNS.groups, errors, strict=True)
                    if sample == run and first <= group < end
                ]
                total += float(np.square(np.sum(inside, axis=0)).sum()) if inside else 0.0
            assert found[first, end] == pytest.approx(total)
    assert np.isinf(found[1, 1])
    summed = RUNS.summed(errors.reshape(-1))
    assert found[0, 3] == pytest.approx(float(summed @ summed))


def test_errors_of_graphs_come_apart():
    found = split(np.arange(5), {"a": 2, "b": 3})

    assert found["a"].tolist() == [0, 1]
    assert found["b"].tolist() == [2, 3, 4]
    with pytest.raises(InternalError, match="5 errors, expected 4"):
        split(np.arange(5), {"a": 2, "b": 2})


def test_moments_that_do_not_divide_the_errors_are_a_fault():
    with pytest.raises(InternalError, match="7 errors of 4 moments"):
        RUNS.summed(np.zeros(7))
