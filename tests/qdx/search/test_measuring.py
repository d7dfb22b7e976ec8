"""Candidates measured as an analysis measured single options."""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager

import pytest

from qdx.analyze.analyze import analyze
from qdx.analyze.settings import AnalysisSettings
from qdx.cache.store import Store
from qdx.exporter.errors import UsageError
from qdx.exporter.plan.schema.load import load_plan
from qdx.exporter.strict_json import dump_json
from qdx.search.budgets import Demand, read_budgets
from qdx.search.measuring import check_prompts
from qdx.search.read import read_analysis
from qdx.search.run import run
from qdx.targets import load_target
from tests.support.searching import analysis

PROMPTS = ["a", "b"]
STEPPED = {
    "schema": "qdx.plan/1",
    "name": "stepped",
    "rules": [{"select": {"component": "*"}, "weights": {"dtype": "float32"}}],
    "calibration": {"samples": 1, "steps": 4, "timestep_groups": 4, "observed": 1.0},
    "gates": {},
}


def asked_with(prompts):
    digest = None if prompts is None else hashlib.sha256(dump_json(prompts)).hexdigest()
    sampling = {"call": {}, "images": "0" * 64, "prompts": digest, "samples": 1, "steps": 2, "seed": 0}  # fmt: skip
    return analysis([], {}, sampling=sampling)


@pytest.mark.parametrize("prompts", [None, PROMPTS])
def test_the_prompts_of_the_analysis_are_taken(prompts):
    check_prompts(asked_with(prompts), prompts)


@pytest.mark.parametrize(
    ("had", "given", "words"),
    [
        (PROMPTS, None, "with the prompts of the analysis"),
        (PROMPTS, ["b", "a"], "other prompts"),
        (None, PROMPTS, "the call's own prompt"),
    ],
)
def test_other_prompts_are_refused(had, given, words):
    with pytest.raises(UsageError, match=words) as refused:
        check_prompts(asked_with(had), given)
    assert "--predicted" in refused.value.hint


@pytest.mark.slow
def test_what_is_found_was_measured_and_is_the_same_again(smallest, tmp_path):
    profile, base = load_target("openvino"), load_plan("w8a8")
    analyze(
        smallest, target="openvino", output=tmp_path / "analysis", settings=AnalysisSettings(
            plan="w8a8", call={"num_inference_steps": 2}, options=["int8", "int4", "int8/int8"], calls=1,
            workers=1, parts=["noise"],
        ),
    )  # fmt: skip
    read = read_analysis(tmp_path / "analysis")
    demand = Demand(read_budgets(["average_bits=7"]))

    found = [
        run(smallest, read, profile, base, demand, name="found", measurements=20, workers=workers)
        for workers in (1, 2)
    ]

    measured = found[0].result.measured
    assert measured["prediction"] > 0
    assert measured["prediction"] != found[0].result.predicted["prediction"]
    assert all(one.noise["prediction"] > 0 for one in found[0].result.controls)
    assert found[0].to_json() == found[1].to_json()
    # Of two steps no ten groups are kept apart, which is told before anything is measured.
    watching = Stopping()
    with pytest.raises(UsageError, match="the schedule of the calibration has 2 steps"):
        run(
            smallest, read, profile, base, demand, name="found", timestep_groups=2, progress=watching
        )  # fmt: skip
    assert watching.tasks
    assert "measuring candidates" not in watching.tasks


class Stopping:
    """Progress that ends the work with the second measurement after a task began so many times."""

    def __init__(self, task=None, times=0):
        self.tasks = []
        self._task, self._times, self._left = task, times, 2

    def say(self, text):
        pass

    @contextmanager
    def task(self, name, total=None, *, unit=""):
        self.tasks.append(name)
        yield self

    def advance(self, n=1):
        if self._task is not None and self.tasks.count(self._task) >= self._times:
            self._left -= n
            if self._left <= 0:
                raise KeyboardInterrupt

    def expect(self, seconds_left):
        pass


@pytest.mark.slow
def test_the_schedule_is_divided_alike_by_any_number_of_workers(smallest, tmp_path):
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(STEPPED))
    profile, base = load_target("benchmarks/narrow_inputs.toml"), load_plan(file)
    settings = AnalysisSettings(
        plan=base,
        call={"num_inference_steps": 4},
        options=["int8/int4", "int8/int6"],
        workers=1,
        parts=["noise"],
    )
    analyze(smallest, target=profile, output=tmp_path / "analysis", settings=settings)
    read = read_analysis(tmp_path / "analysis")
    whole = sum(g.macs * 8 * 5 for g in read.analysis.groups)
    demand = Demand({"bit_operations": float(whole)})

    cache = Store(tmp_path / "cache")
    found = [
        run(
            smallest, read, profile, base, demand, name="found", measurements=30,
            timestep_groups=2, workers=workers, cache=kept,
        )
        for workers, kept in ((1, None), (2, cache), (1, cache))
    ]  # fmt: skip

    assert found[0].to_json() == found[1].to_json() == found[2].to_json()
    # Ended while candidates of the divided schedule are measured, and continued.
    again = Store(tmp_path / "again")
    given = {"name": "found", "measurements": 30, "timestep_groups": 2, "workers": 1}
    stopping = Stopping("measuring candidates", 2)
    with pytest.raises(KeyboardInterrupt):
        run(smallest, read, profile, base, demand, **given, cache=again, progress=stopping)
    resumed = run(smallest, read, profile, base, demand, **given, cache=again)
    assert resumed.to_json() == found[0].to_json()
    assert len(found[0].steps) == 2
    spans = {rule.select.timesteps for rule in found[0].plan.rules} - {None}
    assert spans == {tuple(round(edge, 9) for edge in span) for span in found[0].steps}
    assert found[0].problem.cost(found[0].result.assignment, "bit_operations") <= whole
    untimed = run(smallest, read, profile, base, demand, name="found", measurements=30, cache=cache)
    assert found[0].result.sqnr_db() > untimed.result.sqnr_db()


@pytest.mark.slow
def test_steps_weighed_by_the_trajectory_change_what_is_predicted_and_measured(smallest, tmp_path):
    profile, base = load_target("openvino"), load_plan("w8a8")
    settings = AnalysisSettings(
        plan="w8a8",
        call={"num_inference_steps": 3},
        options=["int8", "int4"],
        workers=1,
        parts=("noise", "trajectory"),
    )
    analyze(smallest, target="openvino", output=tmp_path / "analysis", settings=settings)
    read = read_analysis(tmp_path / "analysis")
    demand = Demand(read_budgets(["average_bits=7"]))

    alike, weighed = (
        run(smallest, read, profile, base, demand, name="found", measurements=20, weigh=weigh)
        for weigh in ("steps", "trajectory")
    )

    measured = [one.result.measured["prediction"] for one in (alike, weighed)]
    assert measured[0] != measured[1]
    for one in (alike, weighed):  # predictions are of the same weights as measurements
        found = one.result.predicted["prediction"] / one.result.measured["prediction"]
        assert 0.5 < found < 2
