"""Every usual slip in JSON has words of its own, with its place and what to write instead."""

from __future__ import annotations

import pytest

from qdx.exporter.errors import InvalidPlan
from qdx.exporter.json_faults import excerpt
from qdx.exporter.strict_json import parse_json, parse_json_list

FAULTS = {
    "single quotes": ("{'prompt': 1}", "1:2", "single quotes, expected double quotes"),
    "a comma before a brace": ('{"a": 1, }', "1:8", "a comma before `}`, expected none"),
    "a comma before a bracket": ('{"a": [1,\n2,\n]}', "2:2", "a comma before `]`, expected none"),
    "Python's True": ('{"a": True}', "1:7", "found `True`, expected `true`"),
    "Python's None": ('{"a": None}', "1:7", "found `None`, expected `null`"),
    "a key without quotes": ("{prompt: 1}", "1:2", "`prompt` is a key without quotes, expected double quotes"),
    "text without quotes": ('{"a": cat}', "1:7", "`cat` is text without quotes, expected double quotes"),
    "a comment": ('{\n  // why\n  "a": 1}', "2:3", "a comment, which JSON does not have"),
    "a comment of a shell": ('{"a": 1 # why\n}', "1:9", "a comment, which JSON does not have"),
    "typographic quotes": ("{\u201ca\u201d: 1}", "1:2", "typographic quotes `\u201c`, expected plain double quotes"),
    "backslashes of a shell": ('{\\"a\\": 1}', "1:2", "a backslash before a quote, expected the quote alone"),
    "quotes of a shell": ("'{\"a\": 1}'", "1:1", "a quote before `{`, expected none"),
    "an equals sign": ('{"a" = 1}', "1:6", "found `=`, expected `:` behind the key"),
    "a comma left out": ('{"a": 1 "b": 2}', "1:9", 'found `"`, expected `,` or a closing bracket'),
    "an end left out": ('{"a": [1', "1:9", "the text ends, expected `]}`"),
    "a quote left out": ('{"a": "b}', "1:7", 'text without an end, expected a closing `"`'),
    "a line break in text": ('{"a": "b\nc"}', "1:9", "`\\n` inside of text"),
    "a path of Windows": ('{"a": "C:\\dir"}', "1:10", "a backslash that begins no escape"),
    "two objects": ('{"a": 1}\n{"b": 2}', "2:1", '`{"b": 2}` behind the end, expected nothing'),
    "nothing": ("  \n", "1:1", "empty, expected JSON"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "place", "words"), FAULTS.values(), ids=FAULTS)
def test_a_slip_is_said_with_its_place_and_the_way_out(text, place, words):
    with pytest.raises(InvalidPlan) as raised:
        parse_json(text, source="p.json", error=InvalidPlan)

    assert raised.value.message.startswith(f"`p.json:{place}`: {words}")
    assert raised.value.hint


def test_a_mark_stands_under_the_place():
    assert excerpt('{"a": 1,\n "b": True}', 15) == '   "b": True}\n        ^'


def test_a_long_line_is_cut_around_the_place():
    shown, mark = excerpt("x" * 500 + "?" + "y" * 500, 500).split("\n")

    assert len(shown) < 80
    assert shown[mark.index("^")] == "?"


def test_an_excerpt_shows_nothing_that_a_terminal_obeys():
    shown, mark = excerpt('{"\x1b[2J": ?}', 9).split("\n")

    assert "\x1b" not in shown
    assert shown[mark.index("^")] == "?"


def test_a_list_is_read_as_strictly():
    assert parse_json_list('[{"a": 1}]', source="s") == [{"a": 1}]
    with pytest.raises(InvalidPlan, match="`s:1:1`: found an object, expected an array"):
        parse_json_list("{}", source="s", error=InvalidPlan)
    with pytest.raises(InvalidPlan, match="key `a` appears twice"):
        parse_json_list('[{"a": 1, "a": 2}]', source="s", error=InvalidPlan)
