"""Turns."""

from __future__ import annotations

from itertools import pairwise

from qdx.bench.rounds import WARM_UP_ROUNDS, Taken, take_turns
from qdx.exporter.progress import SILENT


def turns(names, *, rounds, inputs=1):
    """Who was called with what, in order, and the times that count."""
    log = []

    def call(name):
        def run(number):
            log.append((name, number))
            return Taken(len(log), 0)

        return run

    with SILENT.task("") as task:
        times = take_turns(
            {name: call(name) for name in names}, rounds=rounds, inputs=inputs, task=task, pause_s=0
        )
    return log, times


def test_every_round_calls_everyone_once_with_the_same_inputs():
    log, times = turns("abc", rounds=5, inputs=2)
    rounds = [log[start : start + 3] for start in range(0, len(log), 3)]

    assert len(rounds) == WARM_UP_ROUNDS + 5
    assert all({name for name, _ in one} == set("abc") for one in rounds)
    assert all(len({number for _, number in one}) == 1 for one in rounds)
    assert [one[0][1] for one in rounds[WARM_UP_ROUNDS:]] == [0, 1, 0, 1, 0]
    assert {name: len(taken) for name, taken in times.items()} == dict.fromkeys("abc", 5)


def test_warming_up_does_not_count():
    _, times = turns("a", rounds=2)

    assert times == {"a": [Taken(WARM_UP_ROUNDS + 1, 0), Taken(WARM_UP_ROUNDS + 2, 0)]}


def test_nobody_always_comes_after_the_same_one():
    log, _ = turns("abc", rounds=30)
    names = [name for name, _ in log]
    before_b = {one for one, other in pairwise(names) if other == "b"}

    assert before_b == {"a", "b", "c"}


def test_two_runs_have_the_same_orders():
    assert turns("abcd", rounds=6)[0] == turns("abcd", rounds=6)[0]
