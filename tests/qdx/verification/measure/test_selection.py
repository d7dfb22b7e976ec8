from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qdx.runtime.reference import RecordedCall, RecordedMethod
from qdx.verification.measure.selection import (
    COMPARED_MACS,
    Work,
    compared_in_part,
    fitting,
    steps_of,
    usual_choice,
)

WHERE = "unet.forward"


def record(timesteps, *, times_called=None):
    """Calls that were told these timesteps; None for calls without one."""
    calls = tuple(
        RecordedCall(
            index,
            {"sample": torch.zeros(1, 2)}
            | ({} if timestep is None else {"timestep": torch.tensor(timestep)}),
            {},
        )
        for index, timestep in enumerate(timesteps)
    )
    return RecordedMethod(times_called or len(calls), calls)


def plain(count):
    return record([None] * count)


def denoiser(steps, *, calls=1):
    return record([1000 - step for step in range(steps) for _ in range(calls)])


def indices(chosen):
    return [call.index for call in chosen.calls]


def chosen(one, macs=0, *, every_call=True):
    return usual_choice({WHERE: one}, {WHERE: macs}, every_call=every_call)[WHERE]


@given(st.integers(1, 100), st.integers(1, 20))
def test_what_is_chosen_are_the_first_the_last_and_evenly_spaced_steps(steps, affordable):
    found = chosen(denoiser(steps), COMPARED_MACS // affordable)
    picked = indices(found)

    assert picked == sorted(set(picked))
    assert (picked[0], picked[-1]) == (0, steps - 1)
    assert len(picked) == min(steps, max(3, affordable))
    gaps = [b - a for a, b in itertools.pairwise(picked)]
    assert max(gaps, default=0) - min(gaps, default=0) <= 1
    assert (found.times_called, found.recorded) == (steps, steps)
    assert bool(found.why_not_all) == (len(picked) < steps)


def test_both_branches_of_a_step_go_together():
    found = chosen(denoiser(20, calls=2), COMPARED_MACS // 12)

    assert indices(found) == [0, 1, 8, 9, 16, 17, 22, 23, 30, 31, 38, 39]


def test_calls_of_a_step_are_in_a_row_and_have_its_timestep():
    assert steps_of(record([9, 9, 8, 9])) == [(0, 1), (2,), (3,)]
    assert steps_of(plain(2)) == [(0,), (1,)]
    thinned = RecordedMethod(4, (record([9, 9, 9, 8]).calls[0], *record([9, 9, 9, 8]).calls[2:]))
    assert steps_of(thinned) == [(0,), (1,), (2,)]


def test_a_small_model_is_compared_whole():
    assert indices(chosen(denoiser(100), 10**9)) == list(range(100))


def test_the_largest_model_is_compared_at_three_steps():
    found = chosen(denoiser(20), 10**15)

    assert indices(found) == [0, 10, 19]
    assert "multiply-accumulates" in found.why_not_all


def test_methods_that_are_compared_in_part_are_told_of():
    records = {"small": denoiser(20), "large": denoiser(20), "float": denoiser(20)}
    macs = {"small": COMPARED_MACS // 20, "large": COMPARED_MACS // 19, "elsewhere": 10**15}

    assert compared_in_part(records, macs) == {"large"}


def test_methods_in_floating_point_are_compared_in_nine_calls():
    assert indices(chosen(denoiser(20), every_call=False)) == [0, 2, 5, 7, 10, 12, 14, 17, 19]
    assert indices(chosen(denoiser(9), every_call=False)) == list(range(9))


def works(*pairs):
    return [Work(one, seconds) for one, seconds in pairs]


def test_what_fits_is_compared_whole():
    found = fitting(works((denoiser(20), 1.0), (plain(2), 5.0)), 30.0, why="the budget")

    assert [len(one.calls) for one in found] == [20, 2]
    assert not any(one.why_not_all for one in found)


@pytest.mark.parametrize(("budget_s", "calls"), [(29.9, [19, 2]), (18.0, [8, 2]), (1.0, [2, 2])])
def test_of_what_does_not_fit_the_longest_method_gives_up_steps(budget_s, calls):
    found = fitting(works((denoiser(20), 1.0), (plain(2), 5.0)), budget_s, why="the budget")

    assert [len(one.calls) for one in found] == calls
    assert [one.why_not_all for one in found] == ["the budget", ""]


def test_several_runs_share_a_budget():
    runs = works(*[(denoiser(20, calls=2), 0.5)] * 3)
    found = fitting(runs, 30.0, why="the budget")

    assert [len(one.calls) for one in found] == [20, 20, 20]


def test_nothing_needs_no_budget():
    assert fitting([], 1.0, why="") == ()
