"""Measured calls are spread over the schedule, the runs and the branches of guidance."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from qdx.analyze.calls import choose_moments

WHERE = "unet.forward"


def schedule(steps, calls_each=1):
    text = [("text_encoder.forward", None)] * 2
    return text + [(WHERE, 1000.0 - step) for step in range(steps) for _ in range(calls_each)]


@pytest.mark.parametrize(("steps", "samples", "count"), [(20, 4, 16), (20, 4, 80), (7, 3, 5), (4, 4, 9), (1, 5, 3)])  # fmt: skip
def test_they_are_spread_evenly(steps, samples, count):
    found = choose_moments(schedule(steps), WHERE, samples=samples, count=count)

    assert len(found) == len({(one.sample, one.step) for one in found}) == count
    per_step = Counter(one.step for one in found)
    assert max(per_step.values()) - min(per_step.values() if count >= steps else [1]) <= 1
    per_sample = Counter(one.sample for one in found)
    assert max(per_sample.values()) - min(per_sample.values()) <= 1
    assert [one.step for one in found] == sorted(one.step for one in found)
    gaps = [after.step - before.step for before, after in pairwise(found)]
    assert max(gaps, default=0) - min(gaps, default=0) <= 1
    assert found[0].step <= steps / count
    assert found[-1].step >= steps - 1 - steps / count


def test_no_more_than_there_are():
    assert len(choose_moments(schedule(3), WHERE, samples=2, count=100)) == 6


def test_both_calls_of_a_step_with_guidance_are_measured():
    found = choose_moments(schedule(4, 2), WHERE, samples=1, count=2)

    assert [one.calls for one in found] == [(2, 3), (6, 7)]
    assert [one.timestep for one in found] == [999.0, 997.0]


def test_calls_without_a_timestep_are_steps_of_their_own():
    found = choose_moments(schedule(4), "text_encoder.forward", samples=2, count=9)

    assert [(one.sample, one.calls) for one in found] == [
        (0, (0,)),
        (1, (0,)),
        (0, (1,)),
        (1, (1,)),
    ]
    assert {one.timestep for one in found} == {None}


def test_a_graph_that_is_never_called_has_none():
    assert choose_moments(schedule(4), "vae.decode", samples=2, count=9) == ()
