from __future__ import annotations

from xml.etree import ElementTree as ET

from qdx.exporter.text.card import card


def parsed(text):
    return ET.fromstring(f"<div>{text}</div>")


def test_a_card_has_a_title_and_a_row_for_each_entry():
    found = parsed(card("bundle", ("gate", "value"), [("a", "1"), ("b", "2")]))

    assert found.findtext("p/strong") == "bundle"
    assert [[cell.text for cell in row] for row in found.iter("tr")] == [
        ["gate", "value"],
        ["a", "1"],
        ["b", "2"],
    ]


def test_a_card_without_headings_has_rows_alone():
    assert [row.tag for row in parsed(card("bundle", (), [("size", "3 MB")])).iter("th")] == []


def test_foreign_text_stays_text():
    evil = "</td><script>alert(1)</script>&\"' \x1b[2J\x00"
    found = parsed(card(evil, (evil,), [(evil,)]))

    assert {one.tag for one in found.iter()} == {"div", "p", "strong", "table", "tr", "th", "td"}
