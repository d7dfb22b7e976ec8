"""The additive model corrected by measuring: on problems whose noise does not add up."""

from __future__ import annotations

import numpy as np
import pytest

from qdx.exporter.errors import InternalError
from qdx.search.in_context import by_errors
from qdx.search.ledger import Ledger, Measured
from qdx.search.local import neighbours, with_moves
from qdx.search.pareto import decibels
from qdx.search.refit import refit
from qdx.search.solve import Objective, budget_rows, solve
from tests.support.searching import assignments, drawn, interacting, problem

NOISE = Objective({"prediction": 1.0})


def chained(one, strength=30.0):
    """Measures a problem in which a part is as noisy again where the one before it has few bits, which no single part shows."""

    def measure(batch):
        found = []
        for assignment in batch:
            total = one.noise(assignment)
            for place in range(0, len(assignment) - 1, 2):
                if assignment[place] >= 2 and assignment[place + 1] >= 2:
                    first = one.parts[place].choice(assignment[place]).noise["prediction"]
                    total += strength * first
            found.append(Measured({"prediction": total, "guidance": total}))
        return found

    return measure


def test_it_gains_most_of_what_the_additive_model_misses():
    """Over small problems, held against trying everything."""
    missed = left = 0.0
    for seed in range(8):
        one = drawn(seed, count=6)
        rows = budget_rows(one, {"average_bits": 5})
        measure = chained(one)
        start = solve(one, NOISE, rows)
        found = refit(one, {"additive": start}, rows, Ledger(measure, NOISE, 500))

        fine = [a for a in assignments(one) if one.average_bits(a) <= 5]
        best = decibels(min(one.noise["prediction"] for one in measure(fine)))
        assert found.settled
        assert one.average_bits(found.assignment) <= 5
        missed += best - decibels(found.candidates["additive"])
        left += best - decibels(found.noise["prediction"])
    assert missed > 8
    assert left < missed / 2


def test_a_planted_interaction_costs_the_additive_program_a_decibel_that_refitting_has_back():
    one = problem([1.2, 1.1, 0.9, 0.95, 1.15, 1.12, 0.92, 0.97])
    rows = budget_rows(one, {"average_bits": 6})
    measure = chained(one)
    start = solve(one, NOISE, rows)
    found = refit(one, {"additive": start}, rows, Ledger(measure, NOISE, 500))

    plain = measure([start])[0].noise["prediction"]
    assert decibels(found.noise["prediction"]) >= decibels(plain) + 1


def test_no_single_change_and_no_swap_of_two_improves_what_settled():
    one = drawn(4, count=5)
    rows = budget_rows(one, {"average_bits": 5})
    measure = interacting(one)
    ledger = Ledger(measure, NOISE, 2000)
    found = refit(one, {"additive": solve(one, NOISE, rows)}, rows, ledger)

    here = found.noise["prediction"]
    assert found.settled
    for place, option in neighbours(one, found.assignment):
        changed = (*found.assignment[:place], option, *found.assignment[place + 1 :])
        if one.average_bits(changed) <= 5:
            assert measure([changed])[0].noise["prediction"] >= 0.998 * here


def test_the_best_candidate_is_where_it_begins():
    one = drawn(5, count=6)
    rows = budget_rows(one, {"average_bits": 5})
    good = solve(one, NOISE, rows)
    bad = tuple(3 for _ in good)

    found = refit(one, {"bad": bad, "good": good}, rows, Ledger(interacting(one), NOISE, 500))  # fmt: skip
    assert found.start == "good"
    assert found.candidates["bad"] > found.candidates["good"]


def test_nothing_is_measured_twice_and_no_more_than_allowed():
    one = drawn(6, count=6)
    seen = []

    def measure(batch):
        seen.extend(batch)
        return interacting(one)(batch)

    rows = budget_rows(one, {"average_bits": 5})
    found = refit(one, {"additive": solve(one, NOISE, rows)}, rows, Ledger(measure, NOISE, 10))
    assert len(seen) == len(set(seen)) == found.measured <= 10
    assert not found.settled


def test_more_than_allowed_is_a_defect():
    one = drawn(6, count=6)
    ledger = Ledger(interacting(one), NOISE, 1)

    with pytest.raises(InternalError, match="may be"):
        ledger.values([(0,) * 6, (1,) * 6])


def test_the_same_measurements_lead_to_the_same_assignment():
    one = drawn(7, count=8)
    rows = budget_rows(one, {"average_bits": 5})
    start = solve(one, NOISE, rows)

    runs = [
        refit(one, {"additive": start}, rows, Ledger(interacting(one), NOISE, 500))
        for _ in range(3)
    ]
    assert runs[0] == runs[1] == runs[2]


def nonlinear(one, seed=0, bend=0.15):
    """Measures errors that are not the sum of those of single options: each output is bent."""
    generator = np.random.default_rng(seed)
    common = generator.standard_normal(64)
    vectors = {}
    for place, part in enumerate(one.parts):
        direction = 0.7 * common * generator.choice([-1, 1]) + generator.standard_normal(64)
        direction /= np.linalg.norm(direction)
        for choice in part.choices:
            vectors[place, choice.option] = direction * choice.noise["prediction"] ** 0.5

    def measure(batch):
        found = []
        for assignment in batch:
            total = sum(vectors[place, option] for place, option in enumerate(assignment))
            error = total + bend * np.linalg.norm(total) * np.tanh(total * 3)
            found.append(Measured({"prediction": float(error @ error)}, {"prediction": error}))
        return found

    return measure


def test_errors_lead_further_than_noise_alone_with_no_more_measurements():
    plain = without = with_errors = 0.0
    saved = 0
    for seed in range(6):
        one = drawn(seed, count=24)
        rows = budget_rows(one, {"average_bits": 6})
        measure = nonlinear(one, seed)
        start = {"additive": solve(one, NOISE, rows)}

        def blind(batch, measure=measure):
            return [Measured(found.noise) for found in measure(batch)]

        told = refit(one, start, rows, Ledger(measure, NOISE, 600))
        untold = refit(one, start, rows, Ledger(blind, NOISE, 600))
        plain += decibels(told.candidates["additive"])
        with_errors += decibels(told.noise["prediction"])
        without += decibels(untold.noise["prediction"])
        saved += untold.measured - told.measured
    assert saved > 0
    assert with_errors >= without
    assert with_errors / 6 >= plain / 6 + 1


def test_errors_predict_what_is_measured_where_little_changes():
    one = drawn(2, count=10)
    measure = nonlinear(one, 2, bend=0.0)
    rows = budget_rows(one, {"average_bits": 5})
    start = solve(one, NOISE, rows)
    ledger = Ledger(measure, NOISE, 500)
    moves = neighbours(one, start)
    ledger.values([start, *(with_moves(start, [move]) for move in moves)])
    found = by_errors(one, start, moves, rows, ledger)

    base = ledger.errors(start)
    changes = [(p, o) for p, (o, was) in enumerate(zip(found, start, strict=True)) if o != was]
    predicted = base + sum(ledger.errors(with_moves(start, [m])) - base for m in changes)
    assert changes
    assert float(predicted @ predicted) == pytest.approx(ledger.value(found), rel=1e-6)
