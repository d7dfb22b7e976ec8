"""`qdx report`: a stored verification is judged again and its pages are rewritten; nothing runs."""

from __future__ import annotations

import json

import numpy as np
import pytest

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
        report = report_of([result], pipeline=pipeline)
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
