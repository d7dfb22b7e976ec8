"""The search with the schedule divided, beside what was found without."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qdx.exporter.progress import SILENT
from qdx.search.budgets import Demand
from qdx.search.divided import Divided
from qdx.search.ledger import Measured
from qdx.search.over_schedule import Searched, over_schedule
from qdx.search.search import Settings, search
from tests.support.searching import drawn, interacting

GOAL = Demand(bounds={"prediction": 30.0})
SETTINGS = Settings(prefer="bit_operations")


def over(found, demand, *, noise_times, changes=lambda choice: choice):
    """The search again, where noise adds up to so many times as much over a run."""
    one = found.problem
    alone = interacting(one)

    def measure(batch):
        return [
            Measured({name: noise_times * value for name, value in measured.noise.items()})
            for measured in alone(batch)
        ]

    def divide(undivided, groups):
        parts = tuple(
            # Weights stay quantized, so that nothing comes to float.
            replace(
                part, choices=tuple(changes(choice) for choice in part.choices if choice.option)
            )
            for part in one.parts
        )
        return Divided(replace(one, parts=parts), ((0.0, 0.5), (0.5, 1.0)), 100, measure)

    return over_schedule(
        found, demand, SETTINGS, divide, 2, keeping=lambda given, _: given, progress=SILENT
    )


def found_alone(demand=GOAL):
    one = drawn(3)
    return Searched(one, search(one, demand, SETTINGS, measure=interacting(one)))


def test_a_goal_of_single_steps_is_no_goal_of_sums_over_runs():
    found = found_alone()
    again = over(found, GOAL, noise_times=1e6)

    assert 0 not in found.result.assignment
    assert again.result.assignment == found.result.assignment


def test_what_costs_less_and_loses_no_more_over_runs_is_taken():
    found = found_alone()

    def cheaper(choice):
        return replace(choice, costs={**choice.costs, "bit_operations": choice.costs["bit_operations"] / 2})  # fmt: skip

    again = over(found, GOAL, noise_times=1000.0, changes=cheaper)
    assert again.divided is not None
    assert again.problem.cost(again.result.assignment, "bit_operations") < found.problem.cost(
        found.result.assignment, "bit_operations"
    )


@pytest.mark.parametrize("demand", [GOAL, Demand(budgets={"bit_operations": 60.0})])
def test_where_it_is_no_better_what_was_found_comes_back(demand):
    found = found_alone(demand)

    assert over(found, demand, noise_times=2.0) is found
