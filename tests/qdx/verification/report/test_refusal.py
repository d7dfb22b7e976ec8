from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from qdx.exporter.errors import (
    InvalidBundle,
    InvalidInput,
    InvalidModel,
    InvalidPlan,
    QdxError,
    RuntimeMissing,
    StorageError,
    UsageError,
)
from qdx.verification.report.folder import write_report
from qdx.verification.report.place import clear_report
from qdx.verification.report.refusal import refusals_told
from qdx.verification.verify import verify
from tests.support.judging import report_of


@pytest.fixture
def broken(tmp_path) -> Path:
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "qdx.json").write_text("{")
    return folder


def refused(broken: Path, report: Path | None) -> None:
    with pytest.raises(InvalidBundle, match=r"qdx\.json"):
        verify(broken, model="nowhere", report=report)


def test_a_bundle_that_cannot_be_opened_leaves_a_suite_with_its_error(broken, tmp_path):
    refused(broken, tmp_path / "report")
    error = ET.parse(tmp_path / "report" / "junit.xml").getroot().find(".//error")

    assert {path.name for path in (tmp_path / "report").iterdir()} == {"junit.xml"}
    assert error is not None
    assert "qdx.json" in error.get("message", "")
    assert str(tmp_path) not in (tmp_path / "report" / "junit.xml").read_text()


def test_the_next_verification_takes_its_place(broken, tmp_path):
    for _ in range(2):
        refused(broken, tmp_path / "report")
    write_report(report_of(), tmp_path / "report")

    assert (tmp_path / "report" / "report.json").is_file()


def test_an_earlier_report_does_not_stand_for_a_bundle_that_cannot_be_opened(broken, tmp_path):
    write_report(report_of(), tmp_path / "report")
    refused(broken, tmp_path / "report")

    assert {path.name for path in (tmp_path / "report").iterdir()} == {"junit.xml"}


def test_files_of_others_stay(broken, tmp_path):
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "junit.xml").write_text("<testsuites name='mine'/>")
    refused(broken, tmp_path / "report")

    assert (tmp_path / "report" / "junit.xml").read_text() == "<testsuites name='mine'/>"


def test_nothing_is_written_into_the_bundle_or_without_a_folder(broken, tmp_path):
    for report in (None, broken, broken / "report"):
        with pytest.raises(InvalidBundle), refusals_told(broken, report):
            raise InvalidBundle("no")
    assert {path.name for path in tmp_path.rglob("*")} == {"broken", "qdx.json"}


@pytest.mark.parametrize("kind", [UsageError, InvalidModel, InvalidPlan, InvalidInput])
def test_an_earlier_report_survives_a_wrong_option(kind, broken, tmp_path):
    write_report(report_of(), tmp_path / "report")
    before = {path.name: path.read_bytes() for path in (tmp_path / "report").iterdir()}
    with pytest.raises(kind), refusals_told(broken, tmp_path / "report"):
        raise kind("no")

    assert {path.name: path.read_bytes() for path in (tmp_path / "report").iterdir()} == before


@pytest.mark.parametrize("kind", [InvalidBundle, RuntimeMissing, StorageError])
def test_what_keeps_the_bundle_from_running_takes_its_place(kind, broken, tmp_path):
    write_report(report_of(), tmp_path / "report")
    with pytest.raises(QdxError), refusals_told(broken, tmp_path / "report"):
        raise kind("no")

    assert {path.name for path in (tmp_path / "report").iterdir()} == {"junit.xml"}


def test_a_refusal_is_cleared_like_a_report(broken, tmp_path):
    refused(broken, tmp_path / "report")
    clear_report(tmp_path / "report")

    assert not [*(tmp_path / "report").iterdir()]
