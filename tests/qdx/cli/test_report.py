"""`qdx report`: a stored verification is judged again and its pages are rewritten; nothing runs."""

from __future__ import annotations

import json

import numpy as np
import pytest

from qdx.exporter.plan import load_plan
from qdx.verification.measure.components import MethodResult
from qdx.verification.measure.picture import compare_products
from qdx.verification.report.folder import write_report
from tests.support.judging import call_result, report_of

PIXELS = np.random.default_rng(0).random((1, 16, 16, 3))


@pytest.fixture
def stored(tmp_path):
    """Writes a report whose only call has some SQNR; the plan asks for 50 dB."""

    def write(sqnr_db: float):
        result = MethodResult("unet", "forward", 1, (call_result(0, sqnr_db),))
        pipeline = compare_products({"images": PIXELS}, {"images": PIXELS})
        report = report_of([result], pipeline=pipeline, bundle_plan=load_plan("float16").to_json())
        write_report(report, tmp_path / "report")
        return tmp_path / "report", report

    return write


@pytest.mark.parametrize(("sqnr_db", "status"), [(60.0, 0), (40.0, 1)])
def test_the_verdict_is_that_of_the_verification(qdx, stored, sqnr_db, status):
    folder, report = stored(sqnr_db)
    page = (folder / "report.html").read_bytes()
    (folder / "report.html").unlink()
    done = qdx("report", folder)

    assert (done.status, done.out) == (status, f"{report}\n")
    assert (folder / "report.html").read_bytes() == page


def test_json_is_what_is_stored(qdx, stored):
    folder, report = stored(60.0)

    assert json.loads(qdx("report", folder, "--json").out) == report.to_json()


def test_a_forged_verdict_is_refused_and_its_page_is_not_made(qdx, stored):
    folder, _ = stored(40.0)
    data = json.loads((folder / "report.json").read_text())
    data["ok"] = data["gates"][0]["ok"] = True
    (folder / "report.json").write_text(json.dumps(data))
    page = (folder / "report.html").read_bytes()
    done = qdx("report", folder)

    assert (done.status, done.out) == (2, "")
    assert "gate `unet.sqnr_db` does not follow from the measurements" in done.err
    assert (folder / "report.html").read_bytes() == page


def test_a_folder_without_a_report_is_refused(qdx, tmp_path):
    done = qdx("report", tmp_path)

    assert done.status == 2
    assert "report.json" in done.err


def test_the_default_command_has_a_name_and_takes_options_first(qdx, stored):
    folder, report = stored(60.0)

    assert qdx("report", "show", folder).out == qdx("report", folder).out == f"{report}\n"
    assert json.loads(qdx("report", "--json", folder).out) == report.to_json()


def test_a_folder_named_like_a_command_is_reached_by_a_path(qdx, stored, monkeypatch, tmp_path):
    folder, report = stored(60.0)
    folder.rename(tmp_path / "diff")
    monkeypatch.chdir(tmp_path)

    assert qdx("report", "./diff").out == f"{report}\n"
    assert qdx("report", "diff").status == 2


def test_the_difference_of_two_reports_and_its_exit_status(qdx, stored, tmp_path):
    folder, _ = stored(60.0)
    folder.rename(tmp_path / "before")
    after, _ = stored(52.0)
    before = tmp_path / "before" / "report.json"

    done = qdx("report", "diff", before, after)
    assert done.status == 0
    assert "unet.sqnr_db" in done.out
    assert qdx("report", "diff", before, after, "--fail-on-regression").status == 1
    assert qdx("report", "diff", after, before, "--fail-on-regression").status == 0
    assert json.loads(qdx("report", "diff", before, after, "--json").out)["regressed"] is True


def test_a_report_is_judged_by_another_contract(qdx, stored, tmp_path):
    folder, _ = stored(60.0)
    gates = tmp_path / "gates.json"
    gates.write_text(
        '{"component": {"sqnr_db_min": 65}, "pipeline": {"psnr_db_min": 20, "ssim_min": 0.7}}'
    )
    done = qdx("report", folder, "--gates", gates)

    assert done.status == 1
    assert "judged by gates gates.json" in done.out
    assert qdx("report", folder, "--gates", gates, "--plan", "w8").status == 2


def test_an_altered_report_is_not_compared(qdx, stored):
    folder, _ = stored(40.0)
    (folder / "report.json").write_text(
        (folder / "report.json").read_text().replace("40.0", "70.0")
    )
    done = qdx("report", "diff", folder, folder)

    assert done.status == 2
    assert "does not follow from the measurements" in done.err
