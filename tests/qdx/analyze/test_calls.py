"""Measured calls are spread over the schedule, the runs and the branches of guidance."""

from __future__ import annotations

from collections import Counter

import pytest

from qdx.analyze.calls import choose_moments

WHERE = "unet.forward"


def schedule(steps, calls_each=1):
    text = [("text_encoder.forward", None)] * 2
    return text + [(WHERE, 1000.0 - step) for step in range(steps) for _ in range(calls_each)]


@pytest.mark.parametrize(
    ("steps", "samples", "count"),
    [
        (20, 4, 16),
        (20, 4, 80),
        (20, 4, 33),
        (7, 3, 5),
        (4, 4, 9),
        (1, 5, 3),
        (20, 4, 1),
        (20, 1, 20),
    ],
)
def test_as_many_as_are_wanted_each_once_and_the_last_step_among_them(steps, samples, count):
    found = choose_moments(schedule(steps), WHERE, samples=samples, count=count)

    assert len(found) == len({(one.sample, one.step) for one in found}) == count
    assert [one.step for one in found] == sorted(one.step for one in found)
    assert found[-1].step == steps - 1
    per_sample = Counter(one.sample for one in found)
    assert max(per_sample.values()) - min(per_sample.values()) <= 1
    assert sum(one.weight for one in found) == pytest.approx(1)


def test_fewer_than_steps_stand_for_equal_parts_of_the_schedule():
    found = choose_moments(schedule(21), WHERE, samples=2, count=6)

    assert [one.step for one in found] == [2, 7, 12, 17, 20, 20]
    assert [round(one.weight * 21, 9) for one in found] == [5, 5, 5, 5, 0.5, 0.5]
    assert [one.sample for one in found] == [0, 1, 0, 1, 0, 1]


@pytest.mark.parametrize(
    ("samples", "count", "runs"), [(4, 12, 4), (4, 9, 3), (4, 5, 1), (2, 12, 2), (1, 12, 1)]
)
def test_of_few_steps_the_last_is_seen_in_several_runs(samples, count, runs):
    found = choose_moments(schedule(20), WHERE, samples=samples, count=count)

    last = [one for one in found if one.step == 19]
    assert len({one.sample for one in last}) == len(last) == runs
    assert sum(one.weight for one in last) == pytest.approx(1 / 20)


def test_more_than_steps_are_spent_on_the_last_steps_first():
    found = choose_moments(schedule(10), WHERE, samples=3, count=18)

    runs = Counter(one.step for one in found)
    assert runs[9] == runs[8] == 3
    assert sorted(runs[step] for step in range(8)) == [1, 1, 1, 1, 2, 2, 2, 2]
    for step, number in runs.items():  # every step counts alike
        assert sum(one.weight for one in found if one.step == step) == pytest.approx(1 / 10)
        assert len({one.sample for one in found if one.step == step}) == number


@pytest.mark.parametrize(
    ("steps", "samples", "count"), [(20, 4, 26), (50, 4, 32), (2, 3, 6), (1, 4, 4), (4, 1, 4)]
)
def test_by_default_every_step_and_the_last_two_in_every_run(steps, samples, count):
    assert len(choose_moments(schedule(steps), WHERE, samples=samples, count=None)) == count


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
