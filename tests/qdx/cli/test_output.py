"""Tables, sizes and plain data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from qdx.cli.output import plain, size, table


@dataclass(frozen=True)
class Pair:
    left: object
    right: object


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (3 << 30, "3.0 GiB"),
        (5 << 50, "5120.0 TiB"),
    ],
)
def test_sizes(size_bytes, text):
    assert text == size(size_bytes)


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
