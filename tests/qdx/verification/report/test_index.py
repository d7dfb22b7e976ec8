from __future__ import annotations

import pytest

from qdx.exporter.errors import InvalidInput, UsageError
from qdx.verification.report.folder import write_report
from qdx.verification.report.index import write_index
from tests.support.full_report import facts, full_report
from tests.support.pages import read_page

DATES = ("2026-03-01T10:00:00Z", "2026-03-02T10:00:00Z", "2026-03-03T10:00:00Z")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three verifications of one bundle, the last failing; one of another; and one that was altered."""
    place = tmp_path_factory.mktemp("reports")
    for number, date in enumerate(DATES):
        report = full_report(worst_db=27.0 - 3.5 * number, facts=facts(date))
        write_report(report, place / f"run-{number}")
    write_report(full_report(bundle="other", facts=None), place / "deep" / "er & <b>")
    write_report(full_report(), place / "altered")
    path = place / "altered" / "report.json"
    path.write_text(path.read_text().replace('"ok": true', '"ok": false', 1))
    return place


@pytest.fixture(scope="module")
def page(folder):
    return read_page(write_index(folder).read_bytes())


def test_verdicts_stand_in_a_table_the_newest_first(page):
    rows = page.named("reports").all("tbody")[0].all("tr")

    assert [row.all("th")[0].text for row in rows] == ["run-2", "run-1", "run-0", "deep/er & <b>"]
    assert [row.all("td")[0].text for row in rows] == ["failed", "passed", "passed", "passed"]
    assert "2026-03-03, 10:00 UTC" in rows[0].text
    assert "not stored" in rows[3].text
    assert "5 reports: 3 passed, 1 failed, 1 cannot be read." in page.all("header")[0].text


def test_what_fails_stands_beside_its_verdict(page):
    row = page.named("reports").all("tbody")[0].all("tr")[0]

    assert "unet.sqnr_db 19.0 dB, at least 20 dB" in row.text


def test_every_report_is_linked(page, folder):
    links = [one.attributes["href"] for one in page.named("reports").all("a")]

    assert links[0] == "run-2/report.html"
    assert links[3] == "deep/er%20%26%20%3Cb%3E/report.html"


def test_an_altered_report_is_listed_with_its_reason(page):
    row = page.named("unreadable").all("tbody")[0].all("tr")[0]

    assert row.all("th")[0].text == "altered"
    assert "`altered/report.json`" in row.text
    assert "does not follow from the measurements" in row.text


def test_trends_are_drawn_of_bundles_that_were_verified_more_than_once(page):
    trends = page.named("trends")
    charts = {one.all("figcaption")[0].text: one for one in trends.all("figure")}

    assert [one.text for one in trends.all("h3")] == ["shapes-w8a8 on onnxruntime"]
    assert {"unet.sqnr_db", "pipeline.psnr_db", "size of the bundle"} <= set(charts)
    titles = [one.text for one in charts["unet.sqnr_db"].all("title")]
    assert [one.rpartition(": ")[2] for one in titles] == ["26 dB", "22.5 dB", "19 dB"]
    assert "verification 1, 2026-03-01T10:00:00Z, plan w8a8" in titles[0]
    assert "gate: at least 20" in charts["unet.sqnr_db"].text


def test_the_page_names_no_place_of_the_machine_and_fetches_nothing(page, folder):
    text = (folder / "index.html").read_text()

    assert str(folder.parent) not in text
    assert "http" not in text
    assert not page.all("script")


def test_an_index_is_made_again_and_nothing_else_is_replaced(folder, tmp_path):
    before = (folder / "index.html").read_bytes()
    assert write_index(folder).read_bytes() == before

    (tmp_path / "index.html").write_text("<h1>mine</h1>")
    with pytest.raises(UsageError, match="is no index of reports"):
        write_index(tmp_path)
    assert (tmp_path / "index.html").read_text() == "<h1>mine</h1>"


def test_a_folder_without_reports_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match="expected reports"):
        write_index(tmp_path)
    with pytest.raises(InvalidInput, match="is no folder"):
        write_index(tmp_path / "missing")
    assert not [*tmp_path.iterdir()]
