"""Gates in words: what is measured, where, and which part of the page shows it."""

from __future__ import annotations

import pytest

from qdx.verification.report.gate_words import gate_words, section_of
from tests.support.full_report import full_report

REPORT = full_report().stored
METRICS = {one.name: one for one in REPORT.metrics}
GATE = REPORT.gates[0]


@pytest.mark.parametrize(
    ("name", "words", "section"),
    [
        ("unet.sqnr_db", "unet: SQNR against PyTorch, worst call", "components"),
        ("pipeline.psnr_db", "finished picture: PSNR against PyTorch, worst run", "pictures"),
        (
            "unet.forward.lowering.sqnr_db",
            "unet.forward: SQNR of lowering, quantizer by quantizer, worst place of the worst call",
            "lowering",
        ),
        (
            "other_shape.unet.sqnr_db",
            "unet: SQNR against PyTorch, worst call, at the second shape",
            "other-shape",
        ),
        (
            "baseline.unet.sqnr_db",
            "unet: SQNR against PyTorch, worst call: no worse than in the baseline",
            "components",
        ),
    ],
)
def test_a_gate_says_what_it_measures_and_where_it_is_shown(name, words, section):
    gate = GATE.model_copy(update={"name": name})

    assert gate_words(gate, METRICS) == words
    assert section_of(gate) == section
