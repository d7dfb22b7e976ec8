"""The page: verdict and reasons on top, everything that the report says behind, and nothing that a browser would fetch."""

from __future__ import annotations

import itertools
import re

import pytest

from qdx.verification.report.format import TIMES, measure
from qdx.verification.report.html import html_page
from qdx.verification.report.images import run_sheets, sheets
from qdx.verification.report.names import IMAGES
from qdx.verification.stored.report import StoredReport
from tests.support.full_report import full_report
from tests.support.judging import report_of
from tests.support.pages import read_page


def page_of(report) -> bytes:
    pictures = {**sheets(report.pipeline), **run_sheets(report.samples)}
    return html_page(report.stored, pictures)


PASSED = full_report()
FAILED = full_report(least_db=30.0)
SMALL = report_of()
PAGES = {"passed": page_of(PASSED), "failed": page_of(FAILED), "float": page_of(SMALL)}
PASSED_PAGE, FAILED_PAGE = read_page(PAGES["passed"]), read_page(PAGES["failed"])


def test_the_reports_are_what_they_are_called():
    assert PASSED.ok
    assert not FAILED.ok


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_a_page_is_well_formed_and_fetches_and_runs_nothing(page):
    tree = read_page(page)

    assert not tree.all("script")
    assert not tree.all("link")
    assert not re.search(rb"https?:|@import|url\(|javascript:", page)
    for element in tree:
        assert not any(name.startswith("on") for name in element.attributes)
        assert element.attributes.get("src", "data:").startswith("data:image/png;base64,"[:5])
        assert element.attributes.get("href", "#").startswith("#")


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_every_link_leads_to_a_part_of_the_page(page):
    tree = read_page(page)
    names = {one.attributes["id"] for one in tree if "id" in one.attributes}

    assert {link.attributes["href"][1:] for link in tree.all("a")} <= names


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_headings_go_down_one_by_one_and_landmarks_are_there(page):
    tree = read_page(page)
    levels = [int(one.tag[1]) for one in tree if re.fullmatch("h[1-6]", one.tag)]

    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert [len(tree.all(tag)) for tag in ("header", "nav", "main")] == [1, 1, 1]
    assert tree.all("a")[0].attributes["href"] == "#content"


def test_a_report_with_everything_has_every_part():
    names = [one.attributes["id"] for one in PASSED_PAGE.all("section")]

    assert names == ["gates", "pictures", "plan", "sizes", "steps", "lowering", "guidance", "audit",
                     "errors", "runs", "components", "other-shape", "made"]  # fmt: skip


def test_a_report_of_a_float_bundle_has_the_parts_that_it_can_have():
    names = [one.attributes["id"] for one in read_page(PAGES["float"]).all("section")]

    assert names == ["gates", "pictures", "components", "made"]


def test_the_verdict_stands_on_top():
    top = [
        read_page(PAGES[name]).all("header")[0].all("h1")[0].text for name in ("passed", "failed")
    ]

    assert top == ["✓ passed shapes-w8a8", "✗ failed shapes-w8a8"]
    assert "All 12 gates hold." in PASSED_PAGE.all("header")[0].text


def test_what_failed_stands_on_top_with_value_bound_worst_call_and_a_link():
    failures = FAILED_PAGE.all("header")[0].all("ul", "failures")[0].all("li")

    assert len(failures) == sum(not gate.ok for gate in FAILED.gates) == 2
    text = failures[0].text
    assert "unet: SQNR against PyTorch, worst call" in text
    assert "24.8 dB on 24 of 24 calls, expected at least 30 dB" in text
    assert "worst at forward, call 11 of seed 1" in text
    assert failures[0].all("a")[0].attributes["href"] == "#components"
    assert failures[1].all("a")[0].attributes["href"] == "#other-shape"
    assert failures[0].all("svg", "bullet")


def test_a_report_without_gates_says_that_nothing_is_proved():
    empty = full_report().stored.model_copy(update={"gates": (), "ok": False})

    assert "nothing is proved" in read_page(html_page(empty, {})).all("header")[0].text


@pytest.mark.parametrize("report", [PASSED, FAILED], ids=["passed", "failed"])
def test_every_gate_is_shown_with_its_value_and_its_bound(report):
    rows = read_page(page_of(report)).named("gates").all("tbody")[0].all("tr")

    assert len(rows) == len(report.gates)
    for row, gate in zip(rows, report.gates, strict=True):
        assert gate.name in row.text
        assert measure(gate.name, gate.value) in row.text
        assert gate.sense in row.text
        assert ("holds" if gate.ok else "fails") in row.text


def test_a_gate_without_a_number_has_no_bar_and_a_dash():
    gate = PASSED.stored.gates[0].model_copy(update={"value": None, "ok": False})
    page = read_page(
        html_page(PASSED.stored.model_copy(update={"gates": (gate,), "ok": False}), {})
    )

    assert "not measured" in page.all("header")[0].text
    assert not page.named("gates").all("rect", "good") + page.named("gates").all("rect", "bad")


def test_pictures_of_every_run_stand_side_by_side_with_the_factor_of_the_difference():
    figures = PASSED_PAGE.named("pictures").all("figure")

    assert [one.text for one in figures] == 2 * [
        "PyTorch, float32",
        "artifact",
        f"difference {TIMES} 10",
    ]
    assert [one.text for one in PASSED_PAGE.named("pictures").all("h3")] == [
        f'seed {seed}, prompt "a red circle left of a blue square"' for seed in range(2)
    ]


def test_pictures_of_another_name_do_not_get_into_the_page():
    assert {name for name in IMAGES if name.endswith("-1.png")} == set()
    assert not read_page(html_page(PASSED.stored, {"other.png": b"x"})).all("img")


def test_the_plan_stands_in_words():
    items = PASSED_PAGE.named("plan").all("ol")[0].all("li")

    assert len(items) == len(PASSED.stored.bundle_plan["rules"])
    assert all(item.text.count("Why: ") == 1 for item in items)
    assert any("Weights: int8" in item.text for item in items)


def test_a_plan_of_another_version_has_a_sentence_in_the_place_of_its_words():
    page = read_page(page_of(full_report(bundle_plan={"schema": "qdx.plan/99", "rules": []})))

    assert "does not read the plan" in page.named("plan").text
    assert "qdx.plan/99" in page.named("plan").text


def test_bytes_of_weights_and_artifacts_stand_side_by_side_and_unknown_ones_are_dashes():
    rows = {
        row.all("th")[0].text: row.text
        for row in PASSED_PAGE.named("sizes").all("tbody")[0].all("tr")
    }

    assert "16.3 MiB" in rows["unet"]
    assert "5.7 MiB" in rows["unet"]
    assert "34.9 %" in rows["unet"]
    assert rows["text_encoder"].count(" -") == 3


def test_times_are_called_what_they_are():
    section = PASSED_PAGE.named("sizes")

    assert "They are no benchmark" in section.text
    assert "unet.forward 34.8 ms 31.4 ms" in section.text
    assert "vae.decode - 36.8 ms" in section.text


def test_curves_name_their_axes_lines_and_bounds():
    figure = PASSED_PAGE.named("steps").all("figure", "chart")[0]

    assert "denoising step, the first is 0" in figure.text
    assert "SQNR, dB" in figure.text
    assert "gate: at least 20 dB" in figure.text
    names = {one.text for one in figure.all("text", "name")}
    assert names == {"quantized graph", "unoptimized", "artifact", "worst run"}
    assert any(one.text == "artifact, denoising step 11: 25.8 dB" for one in figure.all("title"))


def test_whole_calls_are_drawn_against_pytorch_and_against_the_quantized_graph():
    charts = PASSED_PAGE.named("steps").all("figure", "chart")

    assert [one.all("figcaption")[0].text for one in charts] == [
        "unet.forward: outputs against PyTorch",
        "unet.forward: outputs against the quantized graph",
    ]
    assert {one.text for one in charts[1].all("text", "name")} == {"unoptimized", "artifact"}
    assert any(one.text == "artifact, denoising step 11: 37.8 dB" for one in charts[1].all("title"))


def test_a_rung_of_another_name_is_drawn_under_that_name():
    stored = PASSED.stored.model_dump_json(by_alias=True).replace('"unoptimized"', '"simulated"')
    page = read_page(html_page(StoredReport.model_validate_json(stored), {}))

    assert "simulated" in page.named("steps").text


def test_lowering_is_the_measure_of_its_gate_and_no_other_curve_has_that_name():
    gate = next(gate for gate in PASSED.gates if "lowering" in gate.name)
    chart = PASSED_PAGE.named("lowering").all("figure", "chart")[0]
    drawn = [one.text for one in chart.all("title") if one.text.startswith("worst place")]
    others = [one.all("figcaption")[0].text for one in PASSED_PAGE.named("steps").all("figure")]

    assert min(float(one.split(": ")[1].split()[0]) for one in drawn) == gate.value
    assert not any("lowering" in caption for caption in others)


def test_the_audit_is_drawn_by_role_and_downgraded_operations_are_named():
    section = PASSED_PAGE.named("audit")
    bars = {one.all("span", "role")[0].text: one for one in section.all("ul", "roles")[0].all("li")}

    assert list(bars) == ["conv", "attn.q", "ff.out", "shortcut", "first"]
    kinds = [rect.attributes["class"] for rect in bars["attn.q"].all("rect")]
    assert kinds == ["executed", "downgraded"]
    assert "80.0 %" in bars["conv"].text
    assert "`Gemm` computed it in float32" in section.text


def test_the_map_has_the_stages_as_rows_and_the_share_in_its_colour_and_words():
    shown = PASSED_PAGE.named("errors").all("table", "map")[0]
    rows = {row.all("th")[0].text: row for row in shown.all("tbody")[0].all("tr")}

    assert list(rows) == ["down.0", "up.1", "mid"]
    assert [one.text for one in shown.all("thead")[0].all("th")] == [
        "stage",
        "conv",
        "attn.out",
        "ff.out",
    ]
    cell = rows["down.0"].all("td")[2]
    assert cell.classes == {"h5"}
    assert cell.text == "88"
    assert (
        cell.attributes["title"]
        == "down.0, ff.out: 88.3 % of the error at the output, 1 of 1 measured"
    )
    assert rows["down.0"].all("td")[0].classes == {"unmeasured"}


def test_the_page_says_when_and_with_which_versions():
    made = PASSED_PAGE.named("made").text

    assert "2026-03-04, 05:06 UTC" in made
    assert "1 min 33 s" in made
    assert "torch 2.13.0" in made
    assert "2026-03-04, 05:06 UTC" in PASSED_PAGE.all("header")[0].text


def test_whose_contract_judges_and_what_must_be_known_of_it_stand_on_top():
    own = html_page(PASSED.stored, {}).decode()
    judged = full_report(
        contract_source="plan ci.json", findings=("the bundle was exported with another plan",)
    )
    page = html_page(judged.stored, {}).decode()

    assert "judged by" not in own
    assert "The acceptance test of the bundle&#x27;s own plan." in own
    top, _, rest = page.partition('<section id="gates"')
    assert "Finding: the bundle was exported with another plan." in top
    assert "<dt>judged by</dt><dd>plan ci.json</dd>" in top
    assert "The acceptance test of plan ci.json, not that of the bundle." in rest


def test_a_report_from_before_there_were_facts_says_so():
    old = full_report(facts=None, bundle_plan=None)
    page = read_page(page_of(old))

    assert "date not stored" in page.all("header")[0].text
    assert [one.attributes["id"] for one in page.all("section")][:3] == [
        "gates",
        "pictures",
        "steps",
    ]
