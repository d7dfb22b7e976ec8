from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

from qdx.compile.export import ExportResult

RESULT = ExportResult(
    Path("out/bundle"),
    ("unet.forward", "vae.decode"),
    81_400_000,
    {"safety_checker": "the call <never> uses it"},
    ("text_encoder",),
    ("give a tokenizer",),
)


def test_a_notebook_shows_what_was_made_and_what_is_missing():
    found = ET.fromstring(f"<div>{RESULT._repr_html_()}</div>")

    assert found.findtext("p/strong") == "out/bundle"
    assert [[cell.text for cell in row] for row in found.iter("tr")] == [
        ["graphs", "unet.forward, vae.decode"],
        ["size", "77.6 MiB"],
        ["left out", "text_encoder"],
        ["without safety_checker", "the call <never> uses it"],
        ["note", "give a tokenizer"],
    ]
