"""Candidates are read as they are written, and rows that are kept are not measured again."""

from __future__ import annotations

import argparse

import pytest

pytest.importorskip("diffusers")

from benchmarks.calibration_defaults import CANDIDATES, Candidate, Kept, Row, table


def row(candidate="8x50", seed=0, worst_db=20.0):
    return Row("shapes", "w8a8", candidate, seed, 12.0, worst_db, 40.0, 0.01, 0.001)


@pytest.mark.parametrize("text", [*CANDIDATES, "4x25@0.5:32", "8x50:32"])
def test_candidates_are_read_as_they_are_written(text):
    assert str(Candidate.of(text)) == text


@pytest.mark.parametrize("text", ["", "8", "8x", "8x50@", "8x50:small"])
def test_what_is_no_candidate_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="expected such as"):
        Candidate.of(text)


def test_rows_are_kept_between_runs(tmp_path):
    Kept(tmp_path / "rows").add(row())
    kept = Kept(tmp_path / "rows")
    assert kept.rows == [row()]
    assert kept.has(row().key)
    assert not kept.has(row(seed=1).key)


def test_the_table_tells_the_spread_between_seeds():
    found = table([row(), row(seed=1, worst_db=22.0), row("4x25")])
    assert "| shapes, w8a8 | 8x50 | 12 | 21.00 (20.00 .. 22.00) | 40.00 (40.00 .. 40.00) |" in found
    assert "| shapes, w8a8 | 4x25 | 12 | 20.00 | 40.00 | 1.00 % | 0.1000 % |" in found
