from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from qdx.exporter.errors import InvalidBundle
from qdx.verification.measure.components import MethodResult
from qdx.verification.report.junit import junit_xml
from qdx.verification.report.junit_suite import refusal_xml
from tests.support.full_report import full_report
from tests.support.judging import call_result, report_of

EVIL = "</failure><script>alert(1)</script>&\"' \x1b[2J\x00 \ud800"


def report_with(*decibels: float, error: str = ""):
    calls = tuple(call_result(i, value, error) for i, value in enumerate(decibels))
    return report_of([MethodResult("unet", "forward", 20, calls, "" if calls else "never called")])


GOOD = report_with(60.0, 70.0)
BAD = report_with(60.0, math.nan, error="12 values are not finite")


def suite_of(data: bytes) -> ET.Element:
    suite = ET.fromstring(data).find("testsuite")
    assert suite is not None
    return suite


def properties(element: ET.Element) -> dict[str, str]:
    return {
        one.get("name", ""): one.get("value", "") for one in element.findall("properties/property")
    }


@pytest.mark.parametrize(
    "report", [GOOD, BAD, replace(GOOD, gates=())], ids=["good", "bad", "no gates"]
)
def test_there_is_a_case_for_each_gate(report):
    suite = suite_of(junit_xml(report.stored))
    cases = suite.findall("testcase")
    failures = {case.get("name") for case in cases if case.find("failure") is not None}

    assert len(cases) == max(1, len(report.gates))
    assert suite.get("tests") == str(len(cases))
    assert suite.get("failures") == str(len(failures))
    assert bool(failures) == (not report.ok)
    if report.gates:
        assert failures == {gate.name for gate in report.gates if not gate.ok}


def test_a_failure_says_value_and_bound():
    failure = ET.fromstring(junit_xml(report_with(48.0).stored)).find(".//failure")

    assert failure is not None
    assert (
        failure.get("message")
        == "unet.sqnr_db: 48 on 1 of 20 calls (worst at forward, call 0), expected at least 50"
    )


def test_every_case_carries_value_bound_and_calls():
    report = full_report()
    cases = suite_of(junit_xml(report.stored)).findall("testcase")

    for case, gate in zip(cases, report.gates, strict=True):
        found = properties(case)
        assert float(found["value"]) == gate.value
        assert float(found["bound"]) == gate.bound
        assert found["sense"] == gate.sense
        assert found.get("calls", "") == gate.rests_on


def test_times_are_those_of_the_calls_and_of_the_whole():
    suite = suite_of(junit_xml(full_report().stored))
    times = {case.get("name"): case.get("time") for case in suite.findall("testcase")}

    assert suite.get("time") == "93.400"
    assert suite.get("timestamp") == "2026-03-04T05:06:07"
    assert times["unet.sqnr_db"] == "0.628"
    assert times["pipeline.ssim"] is None


def test_a_value_that_is_none_is_no_property():
    case = suite_of(junit_xml(BAD.stored)).findall("testcase")[0]

    assert "value" not in properties(case)


def test_text_of_strangers_does_no_harm():
    failure = ET.fromstring(junit_xml(report_with(math.nan, error=EVIL).stored)).find(".//failure")

    assert failure is not None
    assert "<script>" in (failure.text or "")
    assert "\x1b" not in (failure.text or "")


def test_a_refusal_is_a_suite_with_one_error_and_names_no_folder_above_the_bundle():
    refused = InvalidBundle(
        "`/some/place/bundle/qdx.json`: is damaged & <b>", hint="export again: /some/place/bundle"
    )
    suite = suite_of(refusal_xml(Path("/some/place/bundle"), refused))
    error = suite.find("testcase/error")

    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("1", "0", "1")
    assert error is not None
    assert error.get("type") == "InvalidBundle"
    assert error.get("message") == "`bundle/qdx.json`: is damaged & <b>"
    assert "/some/place" not in (error.text or "")
    assert "hint: export again" in (error.text or "")
