"""Costs of pairs: the integer program and the descent, held against every assignment of small problems."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import numpy as np
import pytest

from qdx.exporter.errors import TargetRefusal
from qdx.search.descend import descend
from qdx.search.problem import by_timestep
from qdx.search.solve import Objective, budget_rows, solve
from tests.support.searching import assignments, correlated, drawn

NOISE = Objective({"prediction": 1.0})
NEAR = 1.001
"""How near to the optimum a program of pairs ends: 0.004 dB."""


def changing(seed, ms=0.15, count=5):
    """A problem of a chain of parts, whose choices read float or eight bits, with more noise for the faster ones."""
    one = drawn(seed, count, bits=(32, 8, 4))
    parts = tuple(
        replace(
            part,
            group=place,
            choices=tuple(
                replace(choice, reads="float32" if choice.option < 2 else "int8")
                for choice in part.choices
            ),
        )
        for place, part in enumerate(one.parts)
    )
    generator = random.Random(seed)
    pairs = {
        (a, b): ms * generator.uniform(0.5, 2)
        for a, b in [*itertools.pairwise(range(count)), (0, count - 1)]
    }
    return replace(one, parts=parts, changes_ms=pairs)


def taken(one, assignment):
    """What an assignment takes, added up by hand."""
    alone = sum(
        part.choice(o).costs["latency_ms"] for part, o in zip(one.parts, assignment, strict=True)
    )
    reads = [part.choice(o).reads for part, o in zip(one.parts, assignment, strict=True)]
    return alone + sum(ms for (a, b), ms in one.changes_ms.items() if reads[a] != reads[b])


@pytest.mark.parametrize("seed", range(6))
def test_an_assignment_costs_what_its_parts_and_its_changes_do(seed):
    one = changing(seed)

    for assignment in assignments(one):
        assert one.cost(assignment, "latency_ms") == pytest.approx(taken(one, assignment))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("most", [1.0, 1.6, 2.6])
def test_the_least_noise_within_a_time_is_what_trying_everything_finds(seed, most):
    one = changing(seed)
    fine = [one.noise(a) for a in assignments(one) if taken(one, a) <= most]
    if not fine:
        with pytest.raises(TargetRefusal, match="the least that can is"):
            solve(one, NOISE, budget_rows(one, {"latency_ms": most}))
        return

    found = solve(one, NOISE, budget_rows(one, {"latency_ms": most}))

    assert taken(one, found) <= most
    assert min(fine) * (1 - 1e-9) <= one.noise(found) <= min(fine) * NEAR


@pytest.mark.parametrize("seed", range(6))
def test_the_fastest_is_what_trying_everything_finds(seed):
    one = changing(seed, ms=0.4)
    found = solve(one, Objective({"prediction": 1.0}, "latency_ms"))

    assert taken(one, found) <= min(taken(one, a) for a in assignments(one)) * NEAR


def test_a_time_that_cannot_be_met_names_the_least_with_its_changes():
    one = replace(changing(3, ms=0.4), fixed={"latency_ms": 2.0})
    fastest = min(taken(one, a) for a in assignments(one)) + 2.0

    with pytest.raises(TargetRefusal, match="latency_ms=1 cannot be met") as refused:
        solve(one, NOISE, budget_rows(one, {"latency_ms": 1.0}))
    told = float(refused.value.message.partition("the least that can is ")[2].partition(" ")[0])
    assert fastest * (1 - 1e-9) <= told <= fastest * NEAR
    assert "2 ms are of operations that no option changes" in refused.value.message
    assert refused.value.refusals


@pytest.mark.parametrize("seed", range(6))
def test_descending_keeps_a_time_and_loses_no_more_than_where_it_began(seed):
    one = changing(seed)
    errors = correlated(one, seed)
    rows = budget_rows(one, {"latency_ms": 2.0})
    start = solve(one, NOISE, rows)

    found = descend(one, errors, start, rows)

    assert taken(one, found) <= 2.0

    def lost(assignment):
        places = np.cumsum([0, *(len(p.choices) for p in one.parts[:-1])]) + np.array(assignment)
        return errors.noise(places.tolist())

    assert lost(found) <= lost(start)
    # Neither one change nor two at once are better within the time.
    for places in itertools.combinations(range(len(one.parts)), 2):
        for options in itertools.product(range(3), repeat=2):
            other = list(found)
            for place, option in zip(places, options, strict=True):
                other[place] = option
            if taken(one, other) <= 2.0:
                assert lost(other) >= lost(found) * (1 - 1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_what_changes_cost_more_is_the_difference_of_two_sums(seed):
    one = changing(seed)
    row = budget_rows(one, {"latency_ms": 5.0})[0]
    generator = random.Random(seed)
    for _ in range(40):
        chosen = [generator.randrange(3) for _ in one.parts]
        changed = {generator.randrange(5): generator.randrange(3) for _ in range(2)}
        after = [changed.get(place, now) for place, now in enumerate(chosen)]

        assert row.more(chosen, changed) == pytest.approx(row.total(after) - row.total(chosen))


def test_parts_of_one_time_share_what_they_have_in_common():
    one = changing(1, count=2)
    (pair, ms), *_ = one.changes_ms.items()
    one = replace(one, changes_ms={pair: ms})
    there = {0: [one.parts[0].choices] * 2}

    split = by_timestep(one, [(0, 0.25), (0.25, 1)], there, one.labels)

    assert [cost for *_, cost in split.changes("latency_ms").pairs] == pytest.approx(
        [ms * 0.25, ms * 0.75]
    )


@pytest.mark.parametrize("seed", range(3))
def test_two_moves_together_cost_what_the_sums_say(seed):
    one = changing(seed)
    changes = one.changes("latency_ms")
    generator = random.Random(seed)
    chosen = [generator.randrange(3) for _ in one.parts]
    starts = list(range(0, 3 * len(one.parts) + 1, 3))
    moves = np.array([m for m in range(starts[-1]) if m % 3 != chosen[m // 3]])

    alone = changes.more_by_single(chosen, starts)
    both = changes.together(chosen, starts, moves)

    for (a, first), (b, second) in itertools.permutations(enumerate(moves.tolist()), 2):
        if first // 3 == second // 3:
            continue
        changed = {first // 3: first % 3, second // 3: second % 3}
        expected = changes.more(chosen, changed)
        assert alone[first] + alone[second] + both[a, b] == pytest.approx(expected)
