from __future__ import annotations

import math

import pytest
import torch

from qdx.runtime.reference import RecordedCall, RecordedMethod
from qdx.runtime.tensor_folder import TensorFolder
from qdx.verification.measure import budget
from qdx.verification.measure.budget import time_first_calls
from qdx.verification.measure.comparison import Choice, choose_calls, compare_runs
from qdx.verification.measure.components import compare_calls, rungs_of
from qdx.verification.measure.rungs import QUANTIZED, UNOPTIMIZED, Rung
from tests.support.judging import component_gates

WHERE = "unet.forward"


def record(count, shape=(4,)):
    calls = tuple(
        RecordedCall(
            index,
            {"x": torch.full(shape, float(index + 1)), "timestep": torch.tensor(99 - index)},
            {"y": torch.full(shape, float(index + 1))},
        )
        for index in range(count)
    )
    return RecordedMethod(count, calls)


def right(tensors):
    return {"y": tensors["x"].clone()}


def wrong_at(*values):
    """Answers wrongly where the input is one of these numbers."""

    def run(tensors):
        wrong = tensors["x"].flatten()[0].item() in values
        return {"y": tensors["x"] * (0 if wrong else 1)}

    return run


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on by what a rung says it takes, and not by itself."""
    now = [0.0]
    monkeypatch.setattr(budget.time, "perf_counter", lambda: now[0])

    def taking(seconds, run=right):
        def slow(tensors):
            now[0] += seconds
            return run(tensors)

        return slow

    return taking


@pytest.fixture
def compare(tmp_path):
    def run(runs, method, *, between=(), other=None, **choice):
        rungs = {WHERE: between} if between else {}
        chosen = choose_calls(
            [{WHERE: one} for one in runs],
            None if other is None else {WHERE: other},
            {WHERE: method},
            rungs,
            choice=Choice(**choice),
        )
        return compare_runs(chosen, {WHERE: method}, rungs, scratch=TensorFolder(tmp_path))

    return run


def test_a_budget_that_suffices_compares_every_call(compare, clock):
    ((result,),) = compare([record(20)], clock(1.0), budget_s=21.0).runs

    assert len(result.calls) == result.recorded == result.times_called == 20
    assert result.why_not_all == ""


def test_a_budget_counts_all_rungs_and_the_timing(compare, clock):
    between = [Rung(QUANTIZED, clock(3.0))]
    ((result,),) = compare([record(20)], clock(1.0), between=between, budget_s=44.0).runs

    assert [call.index for call in result.calls] == [0, 2, 4, 6, 8, 11, 13, 15, 17, 19]
    assert result.why_not_all == "the budget is 44 s"


def test_a_budget_counts_a_rung_of_some_calls_for_those(compare, clock):
    between = [Rung(QUANTIZED, clock(1.0), most=3)]
    ((result,),) = compare([record(20)], clock(1.0), between=between, budget_s=15.0).runs

    assert len(result.calls) == 10


def test_a_budget_counts_what_is_remembered_as_if_it_were_not(compare, clock):
    between = [Rung(QUANTIZED, right, fresh=clock(3.0))]
    ((result,),) = compare([record(20)], clock(1.0), between=between, budget_s=44.0).runs

    assert len(result.calls) == 10


def test_runs_and_the_other_shape_share_a_budget(compare, clock):
    found = compare([record(20)] * 2, clock(1.0), other=record(4), budget_s=21.0)

    assert [len(result.calls) for (result,) in (*found.runs, found.other_shape)] == [7, 7, 4]


def test_a_budget_too_short_for_anything_compares_the_first_and_the_last_call(compare, clock):
    ((result,),) = compare([record(20)], clock(1.0), budget_s=0.5).runs

    assert [call.index for call in result.calls] == [0, 19]


def test_a_gate_says_on_how_many_calls_it_rests(compare, clock):
    ((result,),) = compare([record(20)], clock(1.0), budget_s=6.0).runs
    (gate,) = component_gates([result], 30.0)

    assert gate.ok
    assert gate.calls == (5, 20)
    assert gate.to_json()["calls"] == {"compared": 5, "made": 20}


def test_a_fault_in_a_chosen_call_fails_the_gate(compare, clock):
    ((result,),) = compare([record(20)], clock(1.0, wrong_at(20.0)), budget_s=6.0).runs
    (gate,) = component_gates([result], 30.0)

    assert not gate.ok
    assert "on 5 of 20 calls" in str(gate)


def test_a_method_of_which_nothing_was_compared_does_not_pass(compare):
    ((result,),) = compare([RecordedMethod(3, ())], right, budget_s=6.0).runs
    (gate,) = component_gates([result], 30.0)

    assert not gate.ok


def test_answers_on_disk_give_the_results_of_answers_in_memory(tmp_path):
    between = {WHERE: (Rung(QUANTIZED, wrong_at(2.0)), Rung(UNOPTIMIZED, right))}
    methods = {WHERE: wrong_at(3.0)}
    scratch = TensorFolder(tmp_path)
    in_memory = compare_calls({WHERE: record(3)}, methods, between=between)
    on_disk = compare_calls({WHERE: record(3)}, methods, between=between, scratch=scratch)

    assert repr(on_disk) == repr(in_memory)
    assert [call.rungs[0].float_sqnr_db for call in on_disk[0].calls] == [200, 0, 200]
    assert list(tmp_path.iterdir()) == []


def test_one_rung_is_open_at_a_time(tmp_path):
    seen = []

    def rung(name):
        def run(tensors):
            seen.append(name)
            return right(tensors)

        return Rung(
            name, run, lambda: seen.append(f"open {name}"), lambda: seen.append(f"close {name}")
        )

    compare_calls({WHERE: record(2)}, {WHERE: right}, between={WHERE: (rung("a"), rung("b"))})

    assert seen == ["open a", "a", "a", "close a", "open b", "b", "b", "close b"]


def test_timing_leaves_no_rung_open_and_what_opening_takes_out(clock):
    opened = []
    rung = Rung(
        UNOPTIMIZED, clock(2.0), lambda: clock(9.0)({"x": torch.ones(1)}), lambda: opened.append(1)
    )
    found = time_first_calls(
        {WHERE: record(3), "vae.decode": record(1)},
        rungs_of({WHERE: clock(1.0)}, {WHERE: (rung,)}),
    )

    assert found == {WHERE: {UNOPTIMIZED: 2.0, "artifact": 1.0}}
    assert opened == [1]


def test_a_rung_that_fails_is_timed_and_found_failed(compare, clock):
    def broken(_):
        raise RuntimeError("no such kernel")

    ((result,),) = compare([record(2)], clock(1.0, broken), budget_s=5.0).runs

    assert all(math.isnan(call.sqnr_db) for call in result.calls)
