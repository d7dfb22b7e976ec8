"""Tables and plain data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from qdx.cli.output import emit, plain, say, table


@dataclass(frozen=True)
class Pair:
    left: object
    right: object


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Pair(Path("a/b"), (1, None)), {"left": "a/b", "right": [1, None]}),
        ({1: {"x": float("inf")}}, {"1": {"x": "inf"}}),
        ([float("nan"), float("-inf"), 0.5, True], ["nan", "-inf", 0.5, True]),
    ],
)
def test_plain_data(value, expected):
    assert expected == plain(value)


def test_numbers_stand_to_the_right_and_nothing_trails():
    rows = [("a", 1, True, None), ("long", 2000, False, 0.123456)]

    assert (
        table(("name", "size", "ok", "x"), rows)
        == "name   size  ok   x\na         1  yes  -\nlong  2,000  no   0.1235"
    )


def test_a_table_without_rows_is_its_head():
    assert table(("a", "b"), []) == "a  b"


# Clears the screen, the same in one character, turns the line around, is half a character.
EVIL = "a\x1b[2J\x9b2J\u202e\ud800\rb\x7f"
SHOWN = r"a\x1b[2J\x9b2J\u202e\ud800\rb\x7f"


def test_a_cell_is_one_line_without_control_characters():
    assert table(("x",), [(EVIL,), ("one\ntwo",)]) == f"x\n{SHOWN}\none\\ntwo"


def test_what_is_written_for_a_person_has_no_control_characters_but_line_feeds(capsys):
    emit({}, as_json=False, text=f"{EVIL}\nü 画")
    say(f"{EVIL}\nü 画")

    assert capsys.readouterr() == (f"{SHOWN}\nü 画\n", f"{SHOWN}\nü 画\n")


def test_json_is_ascii(capsys):
    emit({EVIL.replace("\ud800", ""): "\x9b"}, as_json=True, text="")

    assert capsys.readouterr().out.isascii()
