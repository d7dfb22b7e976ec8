"""A stored report is input like any other: what was altered, or is missing, does not pass."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pytest

from qdx.exporter.errors import InvalidInput, StorageError
from qdx.exporter.files import dump_json
from qdx.verification.judge.evaluate import gates_of
from qdx.verification.judge.gates import Gate
from qdx.verification.measure.components import MethodResult
from qdx.verification.measure.lockstep import LockstepCall
from qdx.verification.measure.lockstep_runs import LockstepResult
from qdx.verification.measure.picture import compare_products
from qdx.verification.measure.samples import RunResult, RunSpec, Samples
from qdx.verification.report import read as reading
from qdx.verification.report.folder import rewrite_pages, write_report
from qdx.verification.report.read import read_report
from qdx.verification.report.text import report_text
from tests.support.full_report import full_report
from tests.support.judging import CONTRACT, call_result
from tests.support.judging import report_of as judged

GONE = object()
PIXELS = np.random.default_rng(0).random((1, 16, 16, 3))
PICTURE = compare_products({"images": PIXELS}, {"images": PIXELS})


def report_of(*given, **more):
    return judged(*given, pipeline=PICTURE, **more)


def method(*decibels: float) -> MethodResult:
    calls = tuple(call_result(i, value) for i, value in enumerate(decibels))
    return MethodResult("unet", "forward", 20, calls)


def runs(*results: MethodResult) -> Samples:
    return Samples(
        tuple(
            RunResult(RunSpec({"prompt": "a red circle"}, seed), (one,), PICTURE, 40.0)
            for seed, one in enumerate(results)
        )
    )


GOOD = report_of([method(60, 70)], samples=runs(method(60, 70)))


def altered(report, path, value):
    """The report's JSON with one value set or taken out."""
    data = copy.deepcopy(report.to_json())
    *inner, last = path
    place = data
    for key in inner:
        place = place[key]
    if value is GONE:
        del place[last]
    else:
        place[last] = value
    return data


def write(folder, data):
    path = folder / "report.json"
    path.write_bytes(dump_json(data))
    return path


@pytest.mark.parametrize("report", [
    GOOD,
    report_of([method(60, math.nan)]),
    report_of([method(60)], samples=runs(method(60), method(70), method(3))),
    report_of([method(60)], quantized=frozenset({"unet.forward"}),
              lockstep=(LockstepCall("unet.forward", 0, LockstepResult.at({"mid": {"sqnr_db": 50.0}})),)),
], ids=["good", "NaN", "several runs", "lockstep"])  # fmt: skip
def test_gates_judged_from_the_file_are_those_of_the_verification(report, tmp_path):
    write_report(report, tmp_path)
    stored = read_report(tmp_path / "report.json")

    assert gates_of(stored.contract, stored) == report.gates
    assert tuple(map(Gate.read, stored.gates)) == report.gates
    assert report_text(stored) == str(report)


def test_a_later_run_that_is_worse_counts_and_is_named():
    report = report_of([method(60)], samples=runs(method(60), method(70, 3)))
    gate = report.gates[0]

    assert (gate.name, gate.value, gate.calls) == ("unet.sqnr_db", 3, (3, 40))
    assert gate.note == 'worst at forward, call 1 of seed 1, prompt "a red circle"'


def test_pages_are_made_again_to_the_byte(tmp_path):
    write_report(GOOD, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for name in ("report.html", "junit.xml"):
        (tmp_path / name).write_text("old")
    rewrite_pages(tmp_path)

    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


FAULTS = {
    "a better value": (("components", "unet", "methods", "forward", "measured", 0, "sqnr_db"), 61.0),
    "a lost value": (("components", "unet", "methods", "forward", "measured", 0, "sqnr_db"), GONE),
    "no value": (("components", "unet", "methods", "forward", "measured", 0, "sqnr_db"), None),
    "a value in words": (("components", "unet", "methods", "forward", "measured", 0, "sqnr_db"), "60"),
    "a lost call": (("components", "unet", "methods", "forward", "measured"), []),
    "a lost component": (("components",), {}),
    "more calls than counted": (("components", "unet", "methods", "forward", "calls", "made"), -1),
    "a lower bound": (("contract", "component", "sqnr_db_min"), 5),
    "a bound that no plan has": (("contract", "component", "speed_min"), 5),
    "no bound": (("contract", "component", "sqnr_db_min"), GONE),
    "a lost gate": (("gates", 0), GONE),
    "another verdict": (("gates", 0, "ok"), False),
    "another verdict of all": (("ok",), False),
    "a verdict in numbers": (("ok",), 1),
    "a gate without value": (("gates", 0, "value"), None),
    "a lost picture": (("samples", "runs", 0, "psnr_db"), None),
    "an unknown kind": (("pipeline", "outputs", "images", "kind"), "smells"),
    "an unknown key": (("speed",), 1),
    "another schema": (("schema",), "qdx.report/2"),
    "a list for an object": (("components", "unet"), []),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_what_was_altered_is_refused(tmp_path, name):
    with pytest.raises(InvalidInput, match=r"report\.json"):
        read_report(write(tmp_path, altered(GOOD, *FAULTS[name])))


def test_what_was_not_altered_is_not(tmp_path):
    assert read_report(write(tmp_path, GOOD.to_json())).ok


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"ok": NaN}', '{"ok": true, "ok": false}'])
def test_what_is_no_report_is_refused(tmp_path, text):
    (tmp_path / "report.json").write_text(text)

    with pytest.raises(InvalidInput):
        read_report(tmp_path / "report.json")


def test_a_file_beyond_the_limit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("qdx.verification.stored.report.REPORT_LIMIT_BYTES", 100)

    with pytest.raises(InvalidInput, match="expected at most 100"):
        read_report(write(tmp_path, GOOD.to_json()))


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_a_measurement_that_is_no_number_never_passes(value):
    report = report_of([method(60, math.nan if value is None else value)])

    assert not report.ok
    assert not replace(report, gates=()).ok


def test_a_report_that_passed_without_judging_is_refused(tmp_path, monkeypatch):
    """The reader itself would let a forged verdict pass if it did not judge again."""
    failing = report_of([method(3)])
    forged = failing.to_json()
    forged["ok"] = True
    forged["gates"][0]["ok"] = True
    path = write(tmp_path, forged)

    with pytest.raises(InvalidInput, match="does not follow"):
        read_report(path)
    monkeypatch.setattr(reading, "verdict_of", lambda found: tuple(map(Gate.read, found.gates)))
    assert read_report(path).ok


@pytest.mark.parametrize("name", ["reference.png", "artifact.png"])
def test_a_picture_that_is_none_does_not_get_into_the_page(tmp_path, name):
    write_report(GOOD, tmp_path)
    (tmp_path / name).write_text("<script>")

    with pytest.raises(InvalidInput, match="is not a PNG"):
        rewrite_pages(tmp_path)


def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path, monkeypatch):
    write_report(GOOD, tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("qdx.verification.report.folder.os.fsync", full)
    with pytest.raises(StorageError):
        rewrite_pages(tmp_path)
    assert read_report(tmp_path / "report.json").ok


def test_a_report_from_before_there_were_facts_parts_and_stages_is_read(tmp_path):
    data = full_report().to_json()
    del data["facts"]
    for one in data["audit"]["components"].values():
        del one["parts"]
    for site in data["localization"]["sites"]:
        del site["stage"]
    found = read_report(write(tmp_path, data))

    assert found.ok
    assert found.facts is None


FACTS = {
    "a date in words": ("date", "yesterday"),
    "no date": ("date", GONE),
    "a negative duration": ("duration_s", -1.0),
    "a size in words": ("bundle_bytes", "10 MiB"),
    "an unknown fact": ("speed", 1.0),
    "a plan without rules": ("plan", {}),
}


@pytest.mark.parametrize("name", FACTS)
def test_facts_that_were_altered_out_of_form_are_refused(tmp_path, name):
    key, value = FACTS[name]

    with pytest.raises(InvalidInput, match=r"facts"):
        read_report(write(tmp_path, altered(full_report(), ("facts", key), value)))


def test_the_contract_is_stored_as_the_plan_has_it():
    assert GOOD.stored.contract == CONTRACT
