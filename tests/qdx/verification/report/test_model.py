from __future__ import annotations

import base64
import io
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from qdx.exporter.errors import StorageError, UsageError
from qdx.exporter.files import load_json
from qdx.verification.measure.components import MethodResult
from qdx.verification.measure.picture import compare_products
from qdx.verification.report import folder as report_folder
from qdx.verification.report.folder import write_report
from qdx.verification.report.html import html_page
from qdx.verification.report.images import sheets
from qdx.verification.report.junit import junit_xml
from qdx.verification.report.model import Report
from qdx.verification.report.names import FILES
from qdx.verification.report.place import clear_report
from tests.support.judging import call_result, report_of
from tests.support.tiny.families import picture

PICTURE = np.asarray(picture("image-64x48.png"), dtype=np.float64)[np.newaxis] / 255
# What a report of one run with pictures has.
WRITTEN = (
    "reference.png",
    "artifact.png",
    "difference.png",
    "report.html",
    "junit.xml",
    "report.json",
)
# Text of strangers, where it could do harm.
EVIL = "</td><script>alert(1)</script>&\"' \x1b[2J\x00 \ud800"


def make_report(
    *decibels: float, artifact=PICTURE, error="", kind="images", call=None, **more
) -> Report:
    calls = tuple(call_result(i, value, error) for i, value in enumerate(decibels))
    methods = (MethodResult("unet", "forward", 20, calls, "" if calls else "never called"),)
    pipeline = compare_products({kind: PICTURE}, {} if artifact is None else {kind: artifact})
    given = {} if call is None else {"call": call}
    return report_of(methods, pipeline=pipeline, **given, **more)


GOOD = make_report(60.0, 70.0, 65.0)
BAD = make_report(60.0, math.nan, artifact=PICTURE * math.nan, error="12 values are not finite")


def read(path: Path) -> dict:
    """With the strict reader, which takes no NaN and no Infinity."""
    return load_json(path)


def test_the_json_says_what_was_promised(tmp_path):
    write_report(GOOD, tmp_path)
    found = read(tmp_path / "report.json")

    assert found["schema"] == "qdx.report/1"
    assert found["ok"] is True
    assert found["gates"][0] == {
        "name": "unet.sqnr_db",
        "value": 60.0,
        "bound": 50,
        "ok": True,
        "note": "",
        "sense": "at least",
        "calls": {"compared": 3, "made": 20},
    }
    assert found["components"]["unet"]["sqnr_db"] == {"min": 60.0, "median": 65.0}
    assert found["components"]["unet"]["calls"] == {"made": 20, "recorded": 3, "measured": 3}
    assert found["components"]["unet"]["methods"]["forward"]["cosine"] == {
        "min": 1.0,
        "median": 1.0,
    }
    assert found["components"]["unet"]["methods"]["forward"]["max_abs_err"]["max"] == 0.001
    assert found["components"]["unet"]["methods"]["forward"]["psnr_db"]["min"] == 70.0
    assert found["pipeline"]["psnr_db"] == 200
    assert found["pipeline"]["ssim"] == pytest.approx(1)
    assert found["other_shape"] is None
    for key in ("seed", "steps", "call", "versions", "target", "runtime", "plan", "bundle"):
        assert key in found


def test_what_is_not_a_number_is_null_and_not_ok(tmp_path):
    write_report(BAD, tmp_path)
    text = (tmp_path / "report.json").read_text()
    found = read(tmp_path / "report.json")

    assert not re.search(r"NaN|Infinity", text)
    assert found["ok"] is False
    assert {gate["name"]: (gate["value"], gate["ok"]) for gate in found["gates"]} == {
        "unet.sqnr_db": (None, False),
        "pipeline.psnr_db": (None, False),
        "pipeline.ssim": (None, False),
    }
    assert found["components"]["unet"]["sqnr_db"] == {"min": None, "median": None}
    assert found["pipeline"]["psnr_db"] is None


def test_a_report_without_gates_is_not_ok():
    assert not replace(GOOD, gates=()).ok


def pictures_in(page: str) -> list[Image.Image]:
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in found]


def test_the_page_holds_both_pictures_and_the_difference():
    near = (PICTURE + 0.01).clip(0, 1)
    report = make_report(60.0, artifact=near)
    reference, artifact, difference = pictures_in(
        html_page(report.stored, sheets(report.pipeline)).decode()
    )

    for shown, expected in (
        (reference, PICTURE),
        (artifact, near),
        (difference, 10 * np.abs(near - PICTURE)),
    ):
        assert shown.size == (64, 48)
        assert np.asarray(shown) == pytest.approx(expected[0].clip(0, 1) * 255, abs=0.51)


@pytest.mark.parametrize("report", [GOOD, BAD, make_report(60.0, artifact=None), make_report()])
def test_the_page_needs_nothing_else(report):
    page = html_page(report.stored, sheets(report.pipeline)).decode()

    assert not re.search(r"https?:|<script|<link|@import|url\(", page)
    assert ("failed</span>" in page.split("</h1>")[0]) == (not report.ok)
    assert page.count('<span class="failed">fails</span>') == sum(
        not gate.ok for gate in report.gates
    )
    for gate in report.gates:
        assert gate.name in page


def test_the_page_survives_the_text_of_strangers(tmp_path):
    report = make_report(
        math.nan, error=EVIL, call={"prompt": EVIL, "image": Image.new("RGB", (4, 2))}
    )
    write_report(report, tmp_path)

    assert "<script" not in (tmp_path / "report.html").read_text()
    assert read(tmp_path / "report.json")["call"]["image"] == "Image 4x2"


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((1, 8, 8, 1), (8, 8)),
        ((1, 8, 8, 4), (8, 8)),
        ((3, 8, 6, 3), (18, 8)),
        ((9, 8, 6, 3), (24, 8)),
        ((2, 5, 8, 6, 3), (24, 8)),
    ],
)
def test_sheets_show_batches_and_frames_side_by_side(shape, size):
    result = compare_products({"frames": np.ones(shape)}, {"frames": np.zeros(shape)})
    found = sheets(result)

    assert set(found) == {"reference.png", "artifact.png", "difference.png"}
    assert Image.open(io.BytesIO(found["artifact.png"])).size == size


def test_sound_has_no_sheets(tmp_path):
    result = compare_products({"audios": np.ones((1, 2, 10))}, {"audios": np.ones((1, 2, 10))})
    write_report(replace(GOOD, pipeline=result), tmp_path)

    assert {path.name for path in tmp_path.iterdir()} == {"report.json", "junit.xml", "report.html"}


def test_the_same_numbers_make_the_same_bytes(tmp_path):
    for name in ("one", "other"):
        write_report(GOOD, tmp_path / name)

    assert {path.name for path in (tmp_path / "one").iterdir()} == set(WRITTEN) <= set(FILES)
    for name in WRITTEN:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_files_of_others_stay_and_ours_are_replaced(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    write_report(GOOD, tmp_path)
    write_report(make_report(), tmp_path)

    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert read(tmp_path / "report.json")["ok"] is False
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_pictures_of_an_earlier_report_do_not_stay(tmp_path):
    write_report(GOOD, tmp_path)
    write_report(make_report(60.0, artifact=None), tmp_path)

    assert not (tmp_path / "artifact.png").exists()


@pytest.mark.parametrize("name", [*WRITTEN, "artifact-2.png"])
@pytest.mark.parametrize("report", [None, "{}", '{"schema": "other/1"}', "not JSON"])
def test_a_folder_of_someone_else_s_files_is_left_alone(tmp_path, name, report):
    if report is not None:
        (tmp_path / "report.json").write_text(report)
    (tmp_path / name).write_text("[]")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    for attempt in (lambda: clear_report(tmp_path), lambda: write_report(GOOD, tmp_path)):
        with pytest.raises(UsageError, match="holds"):
            attempt()
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_a_link_is_neither_replaced_nor_followed(tmp_path):
    write_report(GOOD, tmp_path / "real")
    outside = tmp_path / "real" / "report.json"
    before = outside.read_bytes()
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "report.json").symlink_to(outside)

    with pytest.raises(UsageError):
        write_report(BAD, tmp_path / "report")
    assert outside.read_bytes() == before


def test_an_unusable_folder_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(StorageError, match="report folder"):
        write_report(GOOD, tmp_path / "file")


def test_a_folder_named_like_a_report_is_refused(tmp_path):
    (tmp_path / "report.json").mkdir()

    with pytest.raises(UsageError, match="report folder"):
        clear_report(tmp_path)


@pytest.mark.parametrize("count", range(2 * len(WRITTEN)))  # of each file, and of its folder
def test_a_full_disk_leaves_no_part_and_no_old_verdict(tmp_path, monkeypatch, count):
    write_report(GOOD, tmp_path)
    left = [count]

    def fsync(_descriptor):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(report_folder.os, "fsync", fsync)
    with pytest.raises(StorageError, match="No space left"):
        write_report(make_report(60.0), tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_the_table_for_the_terminal_names_every_gate():
    text = str(BAD)

    assert text.splitlines()[0].split() == ["gate", "value", "expected", "calls"]
    assert text.count("FAILED") == 3
    assert "12 values are not finite" in text
    assert "\x1b" not in str(make_report(math.nan, error=EVIL))
    assert str(GOOD).count("ok") == 3


def test_no_place_of_this_machine_gets_into_a_report(tmp_path):
    write_report(GOOD, tmp_path)

    for path in tmp_path.iterdir():
        data = path.read_bytes()
        for secret in (str(tmp_path), str(Path.cwd()), str(Path.home()) + "/"):
            assert secret.encode() not in data


def test_json_of_a_report_is_plain_data():
    assert json.loads(json.dumps(GOOD.to_json(), allow_nan=False)) == GOOD.to_json()


def test_every_form_says_what_ran_the_artifact_and_what_that_leaves_unproved(tmp_path):
    proof = "artifact-verified: executed by an <interpreter>; unproved: the device's kernels"
    write_report(GOOD, tmp_path)
    assert read(tmp_path / "report.json")["proof"]["status"] == "artifact-verified"
    assert proof in str(GOOD)
    suite = ET.fromstring(junit_xml(GOOD.stored)).find("testsuite")
    assert suite is not None
    assert suite.find("properties/property").get("value") == proof
    assert "an &lt;interpreter&gt;" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(("report", "verdict"), [(GOOD, "passed"), (BAD, "failed")])
def test_a_notebook_shows_the_verdict_and_every_gate(report, verdict):
    found = ET.fromstring(f"<div>{report._repr_html_()}</div>")
    rows = [[cell.text or "" for cell in row] for row in found.iter("tr")][1:]

    assert found.findtext("p/strong").endswith(f": {verdict}")
    assert [row[0] for row in rows] == [gate.name for gate in report.gates]
    assert [row[4] == "ok" for row in rows] == [gate.ok for gate in report.gates]


def test_a_value_that_misses_its_bound_never_looks_like_it():
    missed = make_report(49.996, 70.0)
    terminal = next(line for line in str(missed).splitlines() if line.startswith("unet.sqnr_db"))
    notebook = ET.fromstring(f"<div>{missed._repr_html_()}</div>")
    cells = [[cell.text or "" for cell in row] for row in notebook.iter("tr")]

    assert terminal.split()[1:7] == ["49.996", "dB", "at", "least", "50.000", "dB"]
    assert ["49.996 dB", "at least 50.000 dB"] in [row[1:3] for row in cells]


def test_a_notebook_shows_no_markup_of_strangers():
    found = ET.fromstring(f"<div>{replace(BAD, plan=EVIL)._repr_html_()}</div>")

    assert [one for one in found.iter() if one.tag == "script"] == []
