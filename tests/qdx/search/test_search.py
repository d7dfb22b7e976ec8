"""The search as a whole: budgets, goals, controls, and interruptions."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from qdx.exporter.errors import TargetRefusal, UsageError
from qdx.search.budgets import Demand
from qdx.search.interactions import Interactions
from qdx.search.kept import kept
from qdx.search.ledger import Measured
from qdx.search.pareto import decibels
from qdx.search.problem import Allowed
from qdx.search.search import Settings, search
from qdx.search.solve import Objective
from qdx.search.verdict import GateResult, Verdict
from tests.support.searching import assignments, correlated, drawn, interacting, problem, together

FEW = Demand(budgets={"average_bits": 6})


def test_without_measuring_it_goes_by_the_model():
    one = drawn(1)
    found = search(one, FEW)

    best = min(one.noise(a) for a in assignments(one) if one.average_bits(a) <= 6)
    assert found.predicted["prediction"] == pytest.approx(best, rel=1e-5)
    assert found.measured is None
    assert found.refitted is None
    assert found.sqnr_db() == decibels(found.predicted["prediction"])


def test_what_is_measured_stands_beside_what_was_predicted():
    one = drawn(1)
    measure = interacting(one)
    found = search(one, FEW, measure=measure)

    assert found.measured == measure([found.assignment])[0].noise
    assert found.measured["prediction"] <= found.additive["prediction"]
    assert all(point.measured is not None for point in found.front.points)


def test_errors_of_single_options_give_candidates():
    one = drawn(3, count=8)
    errors = correlated(one, 3)

    def measure(batch):
        return [Measured({"prediction": together(one, errors, a), "guidance": 1.0}) for a in batch]

    found = search(one, FEW, measure=measure, errors_of=lambda *_: errors)
    assert set(found.refitted.candidates) == {
        "additive",
        "interactions 0.3",
        "interactions 0.6",
        "interactions 1",
    }
    assert found.measured["prediction"] < found.additive["prediction"]


def test_a_plan_that_was_found_beats_permuted_and_uniform_ones():
    one = problem([10 ** (place / 3) for place in range(12)])
    found = search(one, FEW, measure=interacting(one))

    for control in found.controls:
        assert control.average_bits <= 6
        assert decibels(control.noise["prediction"]) < found.sqnr_db()
    assert [control.name for control in found.controls] == ["uniform 4 bits", *["permuted"] * 3]


def test_a_goal_is_held_by_what_is_measured_not_by_the_model():
    one = problem([1.0, 3.0, 0.2, 9.0, 1.0])
    measure = interacting(one, strength=20)
    found = search(one, Demand(bounds={"prediction": 25}), measure=measure)
    predicted = search(one, Demand(bounds={"prediction": 25}))

    assert decibels(measure([predicted.assignment])[0].noise["prediction"]) < 25
    assert found.sqnr_db() >= 25
    assert found.assignment != predicted.assignment
    assert one.average_bits(found.assignment) < 32


@pytest.mark.parametrize("seed", range(6))
def test_a_goal_of_just_what_was_measured_of_an_assignment_is_held_by_it(seed):
    one = drawn(seed)
    measure = interacting(one, strength=2)
    begun = tuple(part.choices[2].option for part in one.parts)
    least = decibels(measure([begun])[0].noise["prediction"])
    found = search(
        one, Demand(bounds={"prediction": least}), Settings(starts={"it": begun}), measure=measure
    )

    assert one.cost(found.assignment, "bytes") <= one.cost(begun, "bytes")
    assert found.sqnr_db() >= least - 1e-6


def test_a_goal_far_from_the_model_ends_at_what_makes_no_noise():
    one = problem([1.0] * 4)

    def measure(batch):  # every option but float makes all noise there is
        return [Measured(dict.fromkeys(("prediction", "guidance"), float(any(a)))) for a in batch]

    found = search(one, Demand(bounds={"prediction": 20}), measure=measure)
    assert found.assignment == (0,) * 4


def test_a_goal_that_nothing_holds_names_the_most_that_was_measured():
    one = problem([1.0] * 4, bits=(8, 4))

    def measure(batch):
        return [Measured({"prediction": 0.05, "guidance": 0.05}) for _ in batch]

    with pytest.raises(TargetRefusal, match=r"the most measured is 13.01"):
        search(one, Demand(bounds={"prediction": 20}), measure=measure)


def test_what_pictures_are_judged_by_stands_beside_what_was_found():
    one = drawn(2)
    asked = []

    def judge(assignment):
        asked.append(assignment)
        noise = one.noise(assignment)
        return Verdict((GateResult("unet.sqnr_db", min(decibels(noise), 99.0), 20.0, "at least"),))

    found = search(one, Demand(judged={"gates": 0.0}), judge=judge)
    assert found.verdict.ok
    assert found.verdict.gates[0].value == decibels(one.noise(found.assignment))
    assert len(asked) <= 8
    cheaper = [p for p in found.front.points if p.cost < one.cost(found.assignment, "bytes")]
    assert not any(decibels(one.noise(point.assignment)) > 20.51 for point in cheaper)


def test_goals_of_pictures_need_something_that_makes_them():
    with pytest.raises(UsageError, match="nothing here makes pictures"):
        search(drawn(2), Demand(judged={"psnr_db": 25.0}))


def test_nothing_asked_is_wrong_usage():
    with pytest.raises(UsageError, match="nothing is asked"):
        search(drawn(2), Demand())


def insisted(option):
    return Allowed(frozenset({option}), "--fix keeps it")


def test_what_the_user_insists_on_stays():
    one = drawn(1)
    kept_parts = {3: insisted(0), 5: insisted(3)}
    found = search(one, FEW, Settings(fixed=kept_parts))

    assert (found.assignment[3], found.assignment[5]) == (0, 3)
    assert search(one, FEW).assignment[3] != 0


def test_what_the_user_insists_on_may_stand_in_the_way():
    with pytest.raises(TargetRefusal, match="--fix keeps it"):
        search(drawn(1), FEW, Settings(fixed={0: insisted(0)}))


def test_the_two_noises_are_weighed_as_asked():
    one = drawn(1)
    parts = []
    for place, part in enumerate(one.parts):
        factor = 1e-3 if place % 2 else 1e3
        parts.append(replace(part, choices=tuple(replace(c, noise={**c.noise, "guidance": factor * c.noise["guidance"]}) for c in part.choices)))  # fmt: skip
    one = replace(one, parts=tuple(parts))

    one_way = search(one, FEW)
    other = search(one, FEW, Settings(Objective({"guidance": 1.0})))
    bound = -10 * math.log10(one.noise(other.assignment, "guidance") * 1.01)
    both = search(one, Demand(FEW.budgets, bounds={"guidance": bound}))
    assert one.noise(other.assignment, "guidance") < one.noise(one_way.assignment, "guidance")
    assert one.noise(both.assignment, "guidance") <= 1.02 * one.noise(other.assignment, "guidance")
    assert one.noise(one_way.assignment) <= one.noise(both.assignment)


def test_an_interrupted_search_measures_nothing_twice(tmp_path):
    one = drawn(4, count=8)
    seen = []

    def measure(batch):
        seen.extend(batch)
        return interacting(one)(batch)

    def stopping(batch):
        if len(seen) > 10:
            raise KeyboardInterrupt
        return measure(batch)

    with pytest.raises(KeyboardInterrupt):
        search(one, FEW, measure=kept(stopping, tmp_path, "a"))
    found = search(one, FEW, measure=kept(measure, tmp_path, "a"))
    whole = search(one, FEW, measure=interacting(one))

    assert len(seen) == len(set(seen))
    assert found == whole
    before = len(seen)
    assert search(one, FEW, measure=kept(measure, tmp_path, "a")) == whole
    assert len(seen) == before


def constant(value, errors=None):
    return lambda batch: [Measured({"prediction": value}, errors) for _ in batch]


def test_measurements_of_something_else_are_not_taken(tmp_path):
    kept(constant(1.0), tmp_path, "a")([(1, 2)])

    assert kept(constant(1.0), tmp_path, "b")([(2, 1)])[0].noise == {"prediction": 1.0}
    assert kept(constant(2.0), tmp_path, "b")([(1, 2)])[0].noise == {"prediction": 2.0}
    assert kept(constant(2.0), tmp_path, "a")([(1, 2)])[0].noise == {"prediction": 1.0}


def test_errors_are_kept_with_the_noise(tmp_path):
    errors = {"prediction": np.arange(5, dtype=np.float32)}
    kept(constant(30.0, errors), tmp_path, "a")([(1, 2)])
    (again,) = kept(constant(0.0), tmp_path, "a")([(1, 2)])

    assert again.noise == {"prediction": 30.0}
    assert np.array_equal(again.errors["prediction"], errors["prediction"])


@pytest.mark.parametrize("damage", [b"", b"{", None])
def test_a_damaged_measurement_is_made_again(tmp_path, damage):
    measure = kept(constant(1.0), tmp_path, "a")
    measure([(1, 2)])
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-1] if damage is None else damage)

    assert measure([(1, 2)])[0].noise == {"prediction": 1.0}


def test_interactions_hold_what_they_are_given():
    one = drawn(3, count=4)
    errors = correlated(one, 3)

    assert isinstance(errors, Interactions)
    assert errors.noise([0, 4, 8, 12]) == pytest.approx(together(one, errors, (0, 0, 0, 0)))


@pytest.mark.parametrize("prefer", ["bytes", "latency_ms"])
def test_what_is_found_for_a_goal_costs_no_more_than_what_it_began_from(prefer):
    one = drawn(8, count=5)
    measure = interacting(one, strength=20)
    noises = {a: measure([a])[0].noise["prediction"] for a in assignments(one)}
    alone = search(one, Demand(bounds={"prediction": 25}), Settings(prefer=prefer), measure=measure)
    holding = [a for a, noise in noises.items() if decibels(noise) >= 25]
    best = min(holding, key=lambda a: one.cost(a, prefer))
    assert one.cost(best, prefer) < one.cost(alone.assignment, prefer)

    def from_(start, **more):
        return search(one, Demand(bounds={"prediction": 25}), Settings(prefer=prefer, starts={"it": start}), measure=measure, **more)  # fmt: skip

    assert from_(best).assignment == best
    assert from_(best).measured["prediction"] == noises[best]
    dearer = (0,) * 5
    assert from_(dearer).assignment == alone.assignment
    cheap = min(noises, key=lambda a: one.cost(a, prefer))
    assert from_(cheap).assignment == alone.assignment  # it does not hold
    # As the runtime has it, not as it was predicted, where time is what counts.
    assert from_(dearer, slower=lambda _: False).assignment == alone.assignment
    slower = from_(dearer, slower=lambda found: found == alone.assignment).assignment
    assert slower == (dearer if prefer == "latency_ms" else alone.assignment)


def test_what_is_found_within_a_budget_loses_no_more_than_what_it_began_from():
    one = drawn(6, count=6)

    def measure(batch):  # the model knows nothing of it
        return [Measured({"prediction": 1e-6 if a == begun else 1.0, "guidance": 1.0}) for a in batch]  # fmt: skip

    begun = (2, 3, 2, 3, 2, 3)
    assert search(one, FEW, measure=measure).assignment != begun
    assert search(one, FEW, Settings(starts={"it": begun}), measure=measure).assignment == begun
    over = (0,) * 6
    assert search(one, FEW, Settings(starts={"it": over}), measure=measure).assignment != over


def test_pictures_are_judged_of_what_it_began_from_where_that_is_cheaper():
    one = drawn(2)
    begun = (2,) * len(one.parts)

    def judge(assignment):
        good = assignment == begun or set(assignment) <= {0, 1}
        return Verdict((GateResult("unet.sqnr_db", 30.0 if good else 1.0, 20.0, "at least"),))

    def from_(*starts):
        settings = Settings(starts=dict(zip("ab", starts, strict=False)))
        return search(one, Demand(judged={"gates": 0.0}), settings, judge=judge)

    assert one.cost(from_().assignment, "bytes") > one.cost(begun, "bytes")
    found = from_(begun)
    assert (found.assignment, found.verdict.ok) == (begun, True)
    assert from_((3,) * len(one.parts)).assignment == from_().assignment


def test_a_start_that_keeps_the_bounds_is_measured_and_one_that_does_not_is_left_out():
    one = drawn(3)
    measured = []

    def measure(batch):
        measured.extend(batch)
        return [Measured({"prediction": 1.0 + len(a), "guidance": 1.0}) for a in batch]

    cheapest = tuple(part.choices[-1].option for part in one.parts)
    dearest = tuple(part.choices[0].option for part in one.parts)
    search(
        one,
        Demand(budgets={"average_bits": 4.0}),
        Settings(starts={"cheap": cheapest, "dear": dearest}, measurements=3),
        measure=measure,
    )

    assert cheapest in measured[:3]
    assert dearest not in measured[:3]
