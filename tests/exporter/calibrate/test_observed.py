"""A share of the steps is observed: every step in equally many samples, every sample with its part of the work."""

from __future__ import annotations

from collections import Counter

import pytest

from qdx.exporter.calibrate.observed import observed_steps


@pytest.mark.parametrize("steps", [1, 2, 7, 50])
@pytest.mark.parametrize("samples", [1, 2, 3, 8])
@pytest.mark.parametrize("share", [1e-9, 0.1, 1 / 3, 0.5, 0.999, 1.0])
def test_every_step_is_observed_in_equally_many_samples(steps, samples, share):
    chosen = observed_steps(steps, samples, share)
    assert len(chosen) == samples
    counts = Counter(step for one in chosen for step in one)
    assert set(counts) == set(range(steps))
    (each,) = set(counts.values())
    assert each >= 1
    assert share * samples <= each + 1e-9 < share * samples + 1 + 1e-6


@pytest.mark.parametrize("share", [0.125, 0.25, 0.5])
def test_samples_bear_equal_parts_and_neighbouring_steps_lie_in_different_samples(share):
    chosen = observed_steps(48, 8, share)
    assert {len(one) for one in chosen} == {int(48 * share)}
    assert all(step + 1 not in one for one in chosen for step in one)


def test_all_steps_of_all_samples_for_the_whole_share():
    assert observed_steps(3, 2, 1.0) == (frozenset({0, 1, 2}),) * 2


def test_a_share_in_decimals_is_no_rounding_error_above_it():
    # In binary 0.1 * 10 and 0.3 * 10 lie beside whole numbers.
    assert [sum(map(len, observed_steps(1, 10, share))) for share in (0.1, 0.3, 0.7)] == [1, 3, 7]
