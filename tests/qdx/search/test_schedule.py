"""The schedule of a small pipeline divided, on its own quantized graphs."""

from __future__ import annotations

import json

import numpy as np
import pytest

from qdx.analyze.session import open_session
from qdx.analyze.settings import AnalysisSettings
from qdx.exporter.errors import UsageError
from qdx.search.divided import Undivided
from qdx.search.from_analysis import problem_of
from qdx.search.schedule import divider
from qdx.search.solve import Objective, budget_rows

STEPS = 4
PLAN = {
    "schema": "qdx.plan/1",
    "name": "tested",
    "rules": [{"select": {"component": "*"}, "weights": {"dtype": "float32"}}],
    "calibration": {"samples": 1, "steps": STEPS, "timestep_groups": STEPS, "observed": 1.0},
    "gates": {},
}
OPTIONS = ["int8/int4", "int8/int6", "int8/int4:groups2", "int8/int6:groups2"]
NOISE = Objective({"prediction": 1.0})


@pytest.fixture(scope="module")
def plan_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    path.write_text(json.dumps(PLAN))
    return path


@pytest.fixture(scope="module")
def opened(smallest, plan_file):
    """A session, its analysis and its arrays."""
    settings = AnalysisSettings(
        parts=("noise",),
        plan=plan_file,
        options=OPTIONS,
        call={"num_inference_steps": STEPS},
        workers=1,
    )
    with open_session(
        smallest, target="benchmarks/narrow_inputs.toml", settings=settings
    ) as session:
        yield session, *session.analysis()


@pytest.fixture(scope="module")
def divided(opened):
    """Divides the schedule, upon four bits everywhere: each way once for all tests."""
    session, analysis, arrays = opened
    problem = problem_of(analysis, options=[1, 2])
    known = {}

    def of(segments, fixed=frozenset(), edges=None):
        if (segments, fixed, edges) not in known:
            assignment = tuple(1 if 1 in g.options else 0 for g in analysis.groups)
            budget = problem.cost(assignment, "bit_operations") * (1 + 1e-9)
            found = Undivided(problem, assignment, fixed, NOISE, {"bit_operations": budget})
            with pytest.MonkeyPatch.context() as patch:
                if edges is not None:
                    patch.setattr("qdx.search.schedule.divide", lambda *_, **__: edges)
                known[segments, fixed, edges] = divider(session, analysis, arrays)(found, segments)
        return known[segments, fixed, edges]

    return of


def at_all(one, option):
    return tuple(
        one.first + option if part.steps else part.choices[0].option for part in one.problem.parts
    )


def test_every_group_has_a_part_for_each_segment(divided):
    one = divided(2)

    assert [start for start, _ in one.steps] == [0.0, one.steps[1][0]]
    assert one.steps[-1][1] == 1.0
    parts = [part for part in one.problem.parts if part.steps]
    assert len(parts) == 2 * len({part.group for part in parts})
    assert {part.steps for part in parts} == set(one.steps)


def test_what_is_spent_over_the_segments_is_what_was_spent_before(divided, opened):
    one = divided(2)
    (row,) = budget_rows(one.problem, {"bit_operations": 1e30})
    problem = problem_of(opened[1], options=[1, 2])

    four = tuple(1 if 1 in g.options else 0 for g in opened[1].groups)
    assert one.problem.cost(at_all(one, 1), "bit_operations") == pytest.approx(
        problem.cost(four, "bit_operations")
    )
    assert one.problem.cost(at_all(one, 1), "bytes") == problem.cost(four, "bytes")
    assert row.name == "bit_operations"


def test_a_part_that_is_fixed_is_not_divided(divided):
    one = divided(2, fixed=frozenset({0}))

    assert [part.steps for part in one.problem.parts if part.group == 0] == [None]
    assert one.problem.parts[0].choices[0].option == 1


def test_equal_segments_measure_what_the_analysis_has_of_equal_groups(divided, opened):
    """One option everywhere in two equal segments is that option with `timestep_groups` 2, its errors added up over the run."""
    one = divided(2, edges=(0, 2, 4))
    session, analysis, _ = opened

    for option, grouped in ((1, 3), (2, 4)):
        (found,) = one.measure([at_all(one, option)])
        everywhere = tuple(grouped if grouped in g.options else 0 for g in analysis.groups)
        (usual,) = session.whole.measure([everywhere])
        errors = usual.errors["prediction"].reshape(STEPS, -1).sum(0)
        assert np.abs(found.errors["prediction"] - errors).max() < 1e-3 * np.abs(errors).max()
        assert found.noise["prediction"] == pytest.approx(float(errors @ errors), rel=1e-3)


def test_a_change_in_one_segment_changes_the_errors_of_its_calls_alone(divided):
    one = divided(2, edges=(0, 2, 4))

    def mixed(early, late):
        return tuple(
            one.first + (early if part.steps[0] == 0 else late)
            if part.steps
            else part.choices[0].option
            for part in one.problem.parts
        )

    found = one.measure([mixed(1, 1), mixed(2, 2), mixed(2, 1), mixed(1, 2)])
    low, high, early, late = (each.errors["prediction"] for each in found)
    assert np.allclose(early + late, low + high, atol=1e-6)
    assert np.abs(early - low).max() > 1e-5
    assert found[1].noise["prediction"] < found[0].noise["prediction"]


def test_what_was_found_before_is_a_start_with_ranges_of_its_own(divided, opened):
    one = divided(2, edges=(0, 2, 4))
    analysis = opened[1]
    problem = problem_of(analysis, options=[1, 2])
    four = tuple(1 if 1 in g.options else 0 for g in analysis.groups)

    (start,) = one.like(four, problem).values()
    assert start == at_all(one, 1)
    same = one.undivided(four, problem)
    assert len(same) == len(one.problem.parts)
    before, after = one.measure([same, start])
    assert 0 < after.noise["prediction"] != before.noise["prediction"] > 0


def test_options_of_a_group_come_back_by_segment(divided):
    one = divided(2)
    by_group = one.by_group(at_all(one, 2))

    assert {len(options) for options in by_group.values()} == {2}
    assert {option for options in by_group.values() for option in options} == {2}


@pytest.mark.parametrize("segments", [5, 100])
def test_more_segments_than_calibration_keeps_apart(divided, segments):
    with pytest.raises(UsageError, match=f"{segments}, and the plan's calibration keeps 4 groups"):
        divided(segments)
