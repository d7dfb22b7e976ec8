"""The contract belongs to the judge: what a bundle asks of itself does not decide for others, and what was better is remembered."""

from __future__ import annotations

import shutil

import pytest

from qdx.exporter.errors import InvalidBundle, UsageError
from qdx.verification.report.read import read_report
from qdx.verification.verify import verify
from tests.support.drifting import drifted, edited
from tests.support.quantizing import WEIGHTS, export, plan, write_plan


@pytest.fixture(scope="module")
def bundle(smallest, tmp_path_factory):
    folder = tmp_path_factory.mktemp("judged")
    export(smallest, folder, asked(25))
    return folder / "onnxruntime"


@pytest.fixture(scope="module")
def baseline(bundle, smallest, tmp_path_factory):
    folder = tmp_path_factory.mktemp("baseline") / "report"
    assert verify(bundle, model=smallest, report=folder, steps=1).ok
    return folder


def asked(sqnr_db, **changes):
    found = plan(WEIGHTS)
    found["gates"]["component"]["sqnr_db_min"] = sqnr_db
    return {**found, **changes}


def weakened(bundle, output, *, seal):
    """A copy that asks for nothing."""

    def change(manifest):
        manifest["resolved"]["gates"]["component"]["sqnr_db_min"] = 0
        manifest["plan"]["gates"]["component"]["sqnr_db_min"] = 0

    return edited(shutil.copytree(bundle, output), change, seal=seal)


def test_a_bundle_that_was_weakened_does_not_open_and_forged_it_fails_the_judges_contract(
    bundle, smallest, tmp_path
):
    with pytest.raises(InvalidBundle, match=r"`plan`, `resolved.gates` was edited"):
        verify(weakened(bundle, tmp_path / "edited", seal=False), model=smallest, steps=1)
    forged = weakened(bundle, tmp_path / "forged", seal=True)
    strict = write_plan(tmp_path, asked(90), "ci.json")
    report = verify(forged, model=smallest, steps=1, plan=strict, report=tmp_path / "report")

    assert verify(forged, model=smallest, steps=1).ok
    assert not report.ok
    assert report.contract.component.sqnr_db_min == 90
    assert (report.contract_source, report.findings) == ("plan ci.json", ())
    assert not read_report(tmp_path / "report" / "report.json").ok
    assert str(report).startswith("judged by plan ci.json, not by the contract in the bundle")


def test_bounds_that_a_judge_leaves_to_the_target_are_not_those_of_the_bundles_copy_of_it(
    bundle, smallest, tmp_path
):
    def change(manifest):
        for row in manifest["target"]["profile"]["choices"]["gates"]:
            row.update({name: 0.0 for name, bound in row.items() if isinstance(bound, float)})

    forged = edited(shutil.copytree(bundle, tmp_path / "forged"), change, seal=True)
    unsaid = asked(25)
    unsaid["gates"] = {"component": {}, "lowering": {}}
    judging = write_plan(tmp_path, unsaid, "ci.json")

    found = [verify(one, model=smallest, steps=1, plan=judging) for one in (bundle, forged)]
    assert found[0].contract == found[1].contract
    assert found[0].contract.lowering.sqnr_db_min > 0


def test_a_plan_of_other_rules_is_a_finding_at_the_top(bundle, smallest, tmp_path):
    rule = {"id": "mine", "select": {"role": "norm"}, "keep": "float32"}
    other = asked(25)
    other["rules"] = [*other["rules"], rule]
    report = verify(bundle, model=smallest, steps=1, plan=write_plan(tmp_path, other, "ci.json"))

    assert report.ok
    assert (
        str(report).splitlines()[0].startswith("finding: the bundle was exported with another plan")
    )
    assert "`mine`" in report.findings[0]


def test_an_equal_run_holds_against_its_baseline_and_a_worse_bundle_does_not(
    bundle, baseline, smallest, tmp_path
):
    worse = drifted(shutil.copytree(bundle, tmp_path / "worse"), 1.05)
    fallen = verify(worse, model=smallest, steps=1, baseline=baseline)
    report = verify(bundle, model=smallest, steps=1, baseline=baseline / "report.json")

    assert report.ok
    assert sum(gate.name.startswith("baseline.") for gate in report.gates) >= 3
    assert "baseline.unet.sqnr_db" in {gate.name for gate in fallen.gates if not gate.ok}


def test_another_call_than_the_baselines_is_refused_before_anything_runs_and_the_report_stays(
    bundle, baseline, smallest, tmp_path
):
    report = shutil.copytree(baseline, tmp_path / "report")
    for given, words in (({"steps": 2}, "num_inference_steps"), ({"steps": 1, "seed": 4}, "runs")):
        with pytest.raises(UsageError, match=words):
            verify(bundle, model=smallest, baseline=report, report=report, **given)
    with pytest.raises(UsageError, match="--baseline-drop-db"):
        verify(bundle, model=smallest, baseline=baseline, baseline_drop_db=float("nan"))
    assert (report / "report.json").read_bytes() == (baseline / "report.json").read_bytes()
