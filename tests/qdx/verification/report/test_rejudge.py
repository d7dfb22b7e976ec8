"""A stored report judged by another contract: nothing runs, and its file says whose contract that is."""

from __future__ import annotations

import json

import numpy as np
import pytest

from qdx.exporter.errors import InvalidInput, UsageError
from qdx.exporter.plan import load_plan
from qdx.verification.measure.components import MethodResult
from qdx.verification.measure.picture import compare_products
from qdx.verification.report.folder import write_report
from qdx.verification.report.read import read_report
from qdx.verification.report.rejudge import rejudge
from tests.support.judging import call_result, report_of

PIXELS = np.random.default_rng(0).random((1, 16, 16, 3))


def write(folder, **more):
    result = MethodResult("unet", "forward", 1, (call_result(0, 55.0),))
    pipeline = compare_products({"images": PIXELS}, {"images": PIXELS})
    plan = load_plan("float16").to_json()
    write_report(report_of([result], pipeline=pipeline, bundle_plan=plan, **more), folder)
    return folder


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "report")


def gates_file(tmp_path, sqnr_db):
    path = tmp_path / "gates.json"
    gates = {
        "component": {"sqnr_db_min": sqnr_db},
        "pipeline": {"psnr_db_min": 20, "ssim_min": 0.7},
    }
    path.write_text(json.dumps(gates))
    return path


@pytest.mark.parametrize(("sqnr_db", "ok"), [(50, True), (60, False)])
def test_the_verdict_is_that_of_the_other_contract_and_the_report_stays_consistent(
    folder, tmp_path, sqnr_db, ok
):
    found = rejudge(folder, plan=None, gates=gates_file(tmp_path, sqnr_db))
    read = read_report(folder / "report.json")

    assert found == read
    assert (read.ok, read.contract_source) == (ok, "gates gates.json")
    assert read.gates[0].bound == sqnr_db
    assert f'failures="{int(not ok)}"' in (folder / "junit.xml").read_text()


def test_a_plan_of_other_rules_is_a_finding(folder):
    found = rejudge(folder, plan="w8", gates=None)

    assert "they differ in" in found.findings[0]
    assert rejudge(folder, plan="float16", gates=None).findings == ()


def test_measurements_stay_as_they_were(folder, tmp_path):
    before = read_report(folder / "report.json")
    after = rejudge(folder, plan=None, gates=gates_file(tmp_path, 60))

    assert after.components == before.components
    assert after.versions == before.versions


def test_a_report_without_its_bundles_plan_is_to_be_verified_again(folder, tmp_path):
    path = folder / "report.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "bundle_plan": None}))
    before = path.read_bytes()
    with pytest.raises(InvalidInput, match="bundle's plan") as caught:
        rejudge(folder, plan=None, gates=gates_file(tmp_path, 60))

    assert "verify the bundle again" in caught.value.hint
    assert path.read_bytes() == before


def test_a_target_of_the_users_own_is_refused(tmp_path):
    write(tmp_path / "own", target="mine")
    with pytest.raises(UsageError, match="`mine`"):
        rejudge(tmp_path / "own", plan="w8", gates=None)
