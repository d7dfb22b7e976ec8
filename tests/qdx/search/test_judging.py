"""Candidates exported and verified, and what their gates say."""

from __future__ import annotations

import json
import math

import pytest

import qdx
from qdx.analyze.analyze import analyze
from qdx.analyze.settings import AnalysisSettings
from qdx.cache.store import Store
from qdx.exporter.errors import TargetRefusal, UsageError
from qdx.exporter.plan import load_plan
from qdx.exporter.strict_json import dump_json
from qdx.search.budgets import Demand
from qdx.search.job import find_plan
from qdx.search.judging import expected_db, judge_of, verdict_of, with_gates
from qdx.search.read import read_analysis
from qdx.search.run import run
from qdx.search.search import Settings
from qdx.search.tools import Tools
from qdx.targets import load_target
from qdx.verification.judge.gates import at_least, at_most
from tests.support.searching import analysis, pipeline

GATES = {"gates": 0.0}
BASE = load_plan("w8a8")


def gates(sqnr_db=30.0, psnr_db=40.0, ratio=1.0):
    return (
        at_least("unet.sqnr_db", sqnr_db, 25.0),
        at_most("unet.conditioning.ratio_max", ratio, 1.1),
        at_least("pipeline.psnr_db", psnr_db, 20.0),
    )


def exporting(sensitive=2.0):
    """Stands for an export: gates by how many convolutions have inputs of 8 bits; tells what it was given."""
    seen = []

    def gates_of(plan):
        seen.append(plan)
        resolved = pipeline().resolved(plan).sites["unet.forward"]
        quantized = sum(bool(one.segments) for one in resolved)
        return gates(60.0 - sensitive * quantized)

    return gates_of, seen


def found(gates_of, judged=GATES, **more):
    return find_plan(
        analysis(sensitivity={"first": 500.0, "last": 100.0}),
        pipeline(),
        BASE,
        Demand(judged=judged),
        Settings(prefer="bit_operations"),
        name="found",
        analysis_sha256="1" * 64,
        tools=Tools(gates_of=gates_of, **more),
    )


def test_the_plan_that_is_found_tells_its_gates_and_their_margins():
    gates_of, seen = exporting()
    done = found(gates_of)

    told = {one.name: one for one in done.plan.found.gates}
    assert set(told) == {"unet.sqnr_db", "unet.conditioning.ratio_max", "pipeline.psnr_db"}
    assert told["unet.sqnr_db"].margin == told["unet.sqnr_db"].value - 25.0 >= 0
    assert told["unet.conditioning.ratio_max"].margin == pytest.approx(0.1)
    assert done.plan.found.measured.psnr_db == 40.0
    assert "3 gates hold" in done.plan.description
    # What was exported last or before does the same as the plan that is written.
    assert gates_of(done.plan)[0].value == told["unet.sqnr_db"].value
    assert len(seen) <= 12
    assert json.loads(json.dumps(done.to_json()))["judged"]["gates"]


def test_a_gate_that_cannot_be_held_is_refused_with_the_least_that_fails():
    with pytest.raises(TargetRefusal) as refused:
        found(lambda _: gates(ratio=1.3))
    assert refused.value.exit_code == 3
    assert [place.site for place in refused.value.refusals] == ["unet.conditioning.ratio_max"]
    assert "1.3" in str(refused.value)


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
@pytest.mark.parametrize("judged", [GATES, {"psnr_db": 30.0}])
def test_a_gate_without_a_number_is_refused_and_never_passed_over(value, judged):
    with pytest.raises(TargetRefusal, match=r"`pipeline.psnr_db` cannot be judged") as refused:
        found(lambda _: gates(psnr_db=value), judged)
    assert refused.value.exit_code == 3


def test_no_gates_prove_nothing():
    with pytest.raises(TargetRefusal, match="no gate at all"):
        verdict_of((), GATES)
    with pytest.raises(TargetRefusal, match="makes no pictures"):
        verdict_of(gates()[:2], {"psnr_db": 20.0})


def test_pictures_alone_are_judged_by_their_own_gate():
    verdict = verdict_of(gates(sqnr_db=1.0), {"psnr_db": 20.0})

    assert verdict.ok
    assert [one.name for one in verdict.gates] == ["pipeline.psnr_db"]
    assert not verdict_of(gates(sqnr_db=1.0), {"psnr_db": 20.0, "gates": 0.0}).ok


def test_a_margin_counts_for_gates_in_decibels():
    assert verdict_of(gates(30.0), {"gates": 5.0}).ok
    assert not verdict_of(gates(30.0), {"gates": 5.1}).ok
    assert verdict_of(gates(30.0), {"gates": 4.0}).slack_db == pytest.approx(1.0)


def test_the_plan_asks_of_pictures_what_the_search_was_asked():
    plan = with_gates(BASE, {"psnr_db": 33.0})

    assert plan.gates.pipeline.psnr_db_min == 33.0
    assert plan.gates.pipeline.ssim_min == BASE.gates.pipeline.ssim_min
    assert plan.gates.conditioning == BASE.gates.conditioning
    assert with_gates(BASE, GATES) == BASE
    gates_of, _ = exporting()
    assert found(gates_of, {"psnr_db": 33.0}).plan.gates.pipeline.psnr_db_min == 33.0


def test_the_first_candidate_is_expected_where_the_gates_of_the_target_are():
    target = load_target("openvino")

    assert expected_db(BASE, target, {"gates": 2.0}) == 27.0
    assert expected_db(BASE, target, {"psnr_db": 33.0}) == 33.0


def test_a_search_that_goes_by_the_analysis_alone_judges_nothing():
    with pytest.raises(UsageError, match="nothing here makes pictures") as refused:
        found(None)
    assert "--predicted" in refused.value.hint


def test_verdicts_outlive_an_interrupted_search(tmp_path):
    gates_of, seen = exporting()

    def stopping(plan):
        if len(seen) == 2:
            raise KeyboardInterrupt
        return gates_of(plan)

    with pytest.raises(KeyboardInterrupt):
        found(stopping, kept=tmp_path)
    done = found(gates_of, kept=tmp_path)
    count = len(seen)

    assert done.to_json() == found(exporting()[0]).to_json()
    assert len({json.dumps(plan.to_json()["rules"]) for plan in seen}) == count
    assert found(gates_of, kept=tmp_path).to_json() == done.to_json()
    assert len(seen) == count


@pytest.mark.parametrize("damage", ["", "{", '{"gates": []}', '{"gates": [{}], "psnr_db": 1}'])
def test_a_damaged_verdict_is_made_again(tmp_path, damage):
    gates_of, seen = exporting()
    judge = judge_of(gates_of, lambda _: BASE, GATES, basis="a", folder=tmp_path)
    first = judge((1,))
    (path,) = tmp_path.iterdir()
    path.write_text(damage)

    again = judge_of(gates_of, lambda _: BASE, GATES, basis="a", folder=tmp_path)
    assert again((1,)) == first
    assert len(seen) == 2


def test_verdicts_of_other_goals_or_analyses_are_not_taken(tmp_path):
    gates_of, seen = exporting()
    for basis, judged in (("a", GATES), ("b", GATES), ("a", {"gates": 1.0})):
        judge_of(gates_of, lambda _: BASE, judged, basis=basis, folder=tmp_path)((1,))

    assert len(seen) == 3


@pytest.mark.slow
def test_the_gates_of_a_plan_that_was_found_hold_when_it_is_exported(smallest, tmp_path):
    call = {"num_inference_steps": 2}
    settings = AnalysisSettings(plan="w8a8", call=call, options=["int8/int8"], calls=1, workers=1)
    analyze(smallest, target="onnxruntime", output=tmp_path / "analysis", settings=settings)
    found = run(
        smallest, read_analysis(tmp_path / "analysis"), load_target("onnxruntime"), BASE,
        Demand(judged=GATES), name="found", prefer="bit_operations", workers=1,
        cache=Store(tmp_path / "cache", limit_bytes=1 << 30),
    )  # fmt: skip
    (tmp_path / "found.json").write_bytes(dump_json(found.plan.to_json()))
    qdx.export(smallest, target="onnxruntime", plan=tmp_path / "found.json", output=tmp_path / "bundle", call=call, workers=1)  # fmt: skip
    report = qdx.verify(tmp_path / "bundle", model=smallest)

    assert report.ok
    assert [(gate.name, pytest.approx(gate.value, abs=1e-5)) for gate in report.gates] == [
        (gate.name, gate.value) for gate in found.plan.found.gates
    ]
