"""Steps along slopes: on problems whose noise bends, and which have several options of one size."""

from __future__ import annotations

import numpy as np
import pytest

from qdx.search.interactions import Interactions
from qdx.search.ledger import Ledger, Measured
from qdx.search.pareto import decibels
from qdx.search.refit import refit
from qdx.search.solve import Objective, budget_rows, solve
from tests.support.searching import assignments, drawn, problem

NOISE = Objective({"prediction": 1.0})


class Bent:
    """Outputs that are a bent sum of what options do: noise, errors of single options, and slopes, all exact."""

    def __init__(self, one, seed=0, alike=0.6, bend=2.0):
        generator = np.random.default_rng(seed)
        common = generator.standard_normal(40)
        self.problem = one
        self.bend = bend
        self.vectors = {}
        for place, part in enumerate(one.parts):
            direction = alike * common * generator.choice([-1, 1])
            direction = direction + (1 - alike) * generator.standard_normal(40)
            direction /= np.linalg.norm(direction)
            for choice in part.choices:
                size = choice.noise["prediction"] ** 0.5
                self.vectors[place, choice.option] = direction * size
        self.measured = 0

    def total(self, assignment):
        return sum(self.vectors[p, o] for p, o in enumerate(assignment))

    def bent(self, total):
        return total + self.bend * total * np.abs(total)

    def noise(self, assignment):
        error = self.bent(self.total(assignment))
        return float(error @ error)

    def measure(self, batch):
        self.measured += len(batch)
        return [Measured({"prediction": self.noise(a), "guidance": 0.0}) for a in batch]

    def slopes(self, assignment):
        total = self.total(assignment)
        gradient = 2 * self.bent(total) * (1 + 2 * self.bend * np.abs(total))
        return {
            (place, option): float(gradient @ (vector - self.vectors[place, assignment[place]]))
            for (place, option), vector in self.vectors.items()
        }

    @property
    def singles(self):
        rows = [
            self.vectors[p, c.option]
            for p, part in enumerate(self.problem.parts)
            for c in part.choices
        ]
        return Interactions(np.array(rows))

    def found(self, rows, limit=500, slopes=None):
        start = solve(self.problem, NOISE, rows)
        ledger = Ledger(self.measure, NOISE, limit)
        told = self.slopes if slopes is None else slopes
        return refit(
            self.problem, {"additive": start}, rows, ledger, singles=self.singles, slopes=told
        )


def test_it_gains_most_of_what_the_additive_model_misses():
    """Over small problems, held against trying everything."""
    missed = left = 0.0
    for seed in range(8):
        one = drawn(seed, count=6)
        rows = budget_rows(one, {"average_bits": 5})
        bent = Bent(one, seed)
        found = bent.found(rows)
        best = min(bent.noise(a) for a in assignments(one) if one.average_bits(a) <= 5)

        assert found.settled
        assert one.average_bits(found.assignment) <= 5
        missed += decibels(best) - decibels(found.candidates["additive"])
        left += decibels(best) - decibels(found.noise["prediction"])
    assert missed > 4
    assert left < missed / 4


def test_slopes_are_what_leads_on():
    """With those of the wrong sign the same measurements find less."""
    right = wrong = 0.0
    for seed in range(3):
        one = drawn(seed, count=40)
        rows = budget_rows(one, {"average_bits": 5})
        bent = Bent(one, seed)
        right += decibels(bent.found(rows, 150).noise["prediction"])
        turned = bent.found(rows, 150, lambda a, b=bent: {k: -v for k, v in b.slopes(a).items()})
        wrong += decibels(turned.noise["prediction"])

    assert right > wrong + 0.5


def test_without_slopes_here_it_measures_neighbours():
    one = drawn(3, count=6)
    rows = budget_rows(one, {"average_bits": 5})
    found = Bent(one, 3).found(rows, slopes=lambda _: None)

    assert found.settled
    assert found.rounds


def test_no_more_is_measured_than_allowed():
    one = drawn(5, count=6)
    bent = Bent(one, 5)
    found = bent.found(budget_rows(one, {"average_bits": 5}), limit=4)

    assert bent.measured == found.measured <= 4
    assert not found.settled


def test_of_options_of_one_size_it_takes_the_one_that_is_best_among_the_others():
    """Two ways to round of equal bytes: alone the first is better everywhere, together the second, whose errors cancel."""
    one = problem([1.0] * 4, bits=(32, 4, 4))
    vectors = {}
    for place in range(4):
        sign = -1 if place % 2 else 1
        vectors[place, 0] = np.zeros(3)
        vectors[place, 1] = np.array([0.9e-2, 0.0, 0.0])
        vectors[place, 2] = np.array([0.0, sign * 1e-2, 0.0])
    bent = Bent(one)
    bent.vectors, bent.bend = vectors, 0.0
    found = bent.found(budget_rows(one, {"average_bits": 4}))

    assert found.assignment == (2, 2, 2, 2)
    assert found.noise["prediction"] == pytest.approx(0.0, abs=1e-12)
