"""Results in files: read back to the bit, counted once, and done again where a file is damaged."""

from __future__ import annotations

import math

import pytest

from qdx.exporter.errors import InternalError, StorageError
from qdx.sweep.results import Outcome, Results

ROWS = {"a" * 64: Outcome((0.1, 1e-300, math.nan), bytes(range(256))), "b" * 64: Outcome((3.0,))}


def same(one, other):
    return {k: v.bits for k, v in one.items()} == {k: v.bits for k, v in other.items()}


def test_what_was_added_is_read_back_to_the_bit(tmp_path):
    Results(tmp_path / "r").add(ROWS)

    found = Results(tmp_path / "r")
    assert same(found.known, ROWS)
    assert found.damage == []


def test_results_of_others_come_with_reload(tmp_path):
    one, other = Results(tmp_path), Results(tmp_path)
    other.add(ROWS)

    assert one.known == {}
    one.reload()
    assert same(one.known, ROWS)


def test_a_result_that_comes_twice_counts_once(tmp_path):
    Results(tmp_path).add({"a" * 64: Outcome((1.0,)), "b" * 64: Outcome((2.0,))})
    Results(tmp_path).add({"b" * 64: Outcome((2.0,)), "c" * 64: Outcome((3.0,))})

    assert Results(tmp_path).known == {
        key * 64: Outcome((value,)) for key, value in (("a", 1.0), ("b", 2.0), ("c", 3.0))
    }


def test_two_results_of_one_job_that_differ_are_an_error(tmp_path):
    Results(tmp_path).add({"a" * 64: Outcome((1.0,))})
    with pytest.raises(InternalError, match="two results of one job differ"):
        Results(tmp_path).add({"a" * 64: Outcome((math.nextafter(1.0, 2.0),))})


@pytest.mark.parametrize("harm", ["cut", "changed", "emptied"])
def test_a_damaged_file_is_removed_and_its_jobs_are_unknown(tmp_path, harm):
    Results(tmp_path).add({"a" * 64: Outcome((1.0,))})
    whole = Results(tmp_path)
    whole.add({"b" * 64: Outcome((2.0,))})
    path = min(tmp_path.iterdir())
    data = path.read_bytes()
    path.write_bytes({"cut": data[:-9], "changed": data.replace(b"0", b"1"), "emptied": b""}[harm])

    found = Results(tmp_path)
    assert len(found.known) == 1
    assert len(found.damage) == 1
    assert not path.exists()


def test_other_files_are_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / f"{'0' * 64}.json.part").write_text("mine")

    assert Results(tmp_path).known == {}
    assert len(list(tmp_path.iterdir())) == 2


def test_a_file_in_the_way_of_the_folder(tmp_path):
    (tmp_path / "r").write_text("")
    with pytest.raises(StorageError):
        Results(tmp_path / "r")
