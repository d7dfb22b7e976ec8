"""Reports of engines that were built and not run: every page says so, in the same words."""

from __future__ import annotations

import pytest

from qdx.exporter.errors import InvalidInput
from qdx.exporter.files import dump_json
from qdx.verification.report.diff import compare_reports
from qdx.verification.report.folder import write_report
from qdx.verification.report.gate_words import gate_words, section_of
from qdx.verification.report.html import html_page
from qdx.verification.report.index import write_index
from qdx.verification.report.junit import junit_xml
from qdx.verification.report.read import read_report
from qdx.verification.stored.report import stored_report
from tests.support.compiled_audit import compiled_report
from tests.support.full_report import full_report
from tests.support.pages import read_page

REPORT = compiled_report()
PAGE = read_page(html_page(REPORT.stored, {}))
GATE = "unet.audit.compiled_share"


def gate_of(report, name):
    return next((gate for gate in report.gates if gate.name == name), None)


def test_the_gate_is_of_what_was_compiled_with_the_bound_that_the_plan_has_for_what_is_executed():
    gate = gate_of(REPORT, GATE)

    assert (gate.bound, gate.ok) == (REPORT.contract.audit.executed_share_min, False)
    assert gate.value == pytest.approx(90 / 95)
    assert gate.note == "1 sites in higher precision"
    assert gate_of(REPORT, "unet.audit.executed_share") is None
    assert gate_of(full_report(), GATE) is None


def test_gates_say_what_they_measure():
    gate = next(one for one in REPORT.stored.gates if one.name == GATE)

    assert (
        gate_words(gate, {})
        == "unet: share of what is planned in low precision that was compiled so, and not run"
    )
    assert section_of(gate) == "audit"


def test_an_audit_without_anything_planned_has_no_gate_of_its_own():
    audit = REPORT.audits[0]
    weights_alone = type(audit)(
        "text_encoder", 10, 0, 0, 0, None, (), engines=audit.engines, way_macs={"native": 0}
    )
    report = compiled_report(audits=(audit, weights_alone))

    assert [gate.name for gate in report.gates if "audit" in gate.name] == [GATE]
    assert "text_encoder: weights alone are quantized; compiled and not run" in str(report)
    page = read_page(html_page(report.stored, {}))
    assert "Weights alone are quantized. Nothing was run" in page.named("audit").text


def test_the_text_has_ways_attention_memory_and_the_proof():
    text = str(REPORT)

    assert "94.7 % of what is planned compiled so and not run" in text
    assert (
        "unet.forward, TensorRT-RTX 1.7.1.116 for 8.9: 2 native low precision, 1 weights dequantized inside the "
        "product, 1 dequantized to memory"
    ) in text
    assert "attention fused 1 of 2" in text
    assert "2.0 MiB of weights, 1.0 MiB between layers" in text
    assert (
        "engine-built: compiled for int8 operands by TensorRT-RTX 1.7.1.116 for 8.9, not run; values computed by ONNX "
        "Runtime 1.32.0; unproved:"
    ) in text


def test_the_page_draws_each_way_by_role_and_tells_engines_and_memory():
    audit = PAGE.named("audit")
    roles = audit.all("ul", "roles")[0]
    bars = {one.all("span", "role")[0].text: one for one in roles.all("li")}

    assert audit.all("h2")[0].text == "What the engines were compiled for"
    kinds = {role: [r.attributes["class"] for r in one.all("rect")] for role, one in bars.items()}
    assert kinds == {
        "conv": ["executed"],
        "attn.q": ["executed", "in-memory"],
        "time_embed": ["in-product"],
        "first": ["planned-float"],
    }
    assert len(audit.all("ul", "legend")[0].all("li")) == 5
    assert "Nothing of it was run" in audit.text
    assert "1 of 2" in audit.text
    assert "attn2" in audit.text
    assert "kgen MaxrSubExpSumDivMul" in audit.text
    assert "2.0 MiB" in audit.text


def test_the_page_says_what_the_proof_says():
    assert "Verified with an engine that was built and not run (engine-built)" in PAGE.text
    assert "not run; values computed by ONNX Runtime 1.32.0." in PAGE.named("made").text


def test_junit_has_the_proof():
    assert b"engine-built: compiled for int8 operands" in junit_xml(REPORT.stored)


def test_a_difference_names_what_became_of_the_engine():
    audit = REPORT.audits[0]
    before = audit.engines["unet.forward"]
    after = type(before)(
        **{**vars(before), "layers": {"gemm": 43, "kgen": 228}, "weights_bytes": 5}
    )
    other = type(audit)(**{**vars(audit), "engines": {"unet.forward": after}})
    found = compare_reports(
        REPORT.stored, compiled_report(audits=(other,)).stored, ("old", "new")
    ).facts

    assert found == {
        "layers of unet.forward": ("243", "271"),
        "bytes of unet.forward on the device: weights": (f"{2 << 20}", "5"),
    }


def test_the_index_shows_the_share(tmp_path):
    write_report(REPORT, tmp_path / "one")
    write_report(REPORT, tmp_path / "two")

    assert GATE.encode() in write_index(tmp_path).read_bytes()


def test_a_stored_report_reads_as_it_was_written(tmp_path):
    write_report(REPORT, tmp_path)

    assert read_report(tmp_path / "report.json") == REPORT.stored


def test_a_report_from_before_there_were_engines_is_read():
    data = full_report().to_json()
    del data["proof"]["compiled"]

    assert stored_report(data).proof.compiled == ""


@pytest.mark.parametrize("key", ["way_macs", "engines"])
def test_a_compiled_part_that_was_altered_out_of_form_is_refused(tmp_path, key):
    data = REPORT.to_json()
    data["audit"]["components"]["unet"]["compiled"][key] = {"fast": 1}
    (tmp_path / "report.json").write_bytes(dump_json(data))

    with pytest.raises(InvalidInput, match=key):
        read_report(tmp_path / "report.json")
