"""Prompts for calibration."""

from __future__ import annotations

import pytest

from qdx.calibration.prompts import prompts_record, read_prompts, sample_calls
from qdx.exporter.errors import InvalidInput


def test_prompts_are_dealt_out_in_turn_and_recorded_by_digest():
    calls = sample_calls({"prompt": ["x", "y"], "eta": 0}, 2, ["one", "two", "three"])
    assert [call["prompt"] for call in calls] == [["one", "two"], ["three", "one"]]
    record = prompts_record(calls, ["one", "two", "three"])
    assert record is not None
    assert record.count == 3
    other = prompts_record(calls[::-1], ["one", "two", "three"])
    assert other is not None
    assert record.sha256 != other.sha256
    assert prompts_record(sample_calls({"prompt": "x"}, 2, None), None) is None


def test_prompts_are_read_one_from_each_line(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_bytes("a red circle\r\n\n  ein grüner Kreis \n".encode())
    assert read_prompts(path) == ["a red circle", "ein grüner Kreis"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\n \n", "0 prompts, expected 1 to"),
        (b"\xff", "expected UTF-8"),
        (b"\xef\xbb\xbfa", "byte order mark"),
        (b"one\na\x1b[2J", r":2`: not a prompt"),
        (b"x" * 5000, r":1`: not a prompt, expected up to 4096"),
        (b"a\n" * 10_001, "10001 prompts"),
        (b"a" * (5 * 2**20), "bytes, expected at most"),
    ],
)
def test_files_that_hold_no_prompts_are_refused(tmp_path, data, words):
    path = tmp_path / "prompts.txt"
    path.write_bytes(data)
    with pytest.raises(InvalidInput, match=words):
        read_prompts(path)
    with pytest.raises(InvalidInput, match="not found"):
        read_prompts(tmp_path / "none.txt")
