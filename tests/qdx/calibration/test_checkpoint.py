"""What is kept of a sample is whole and its own, or is not used and said to be damaged."""

from __future__ import annotations

import shutil

import pytest
import torch

from qdx.calibration.checkpoint import KeptAnswers, SampleCheckpoint, Seal
from qdx.exporter.calibrate.ranges_file import dump_ranges
from tests.support.calibrating import Ended, Told, calibrated, sample_files
from tests.support.recording import recorded

SEAL = Seal("calls of sample 3", "sites of sample 3")
ANSWER = {"sample": torch.arange(6.0).reshape(2, 3)}


@pytest.fixture(scope="module")
def ranges():
    return recorded()[0]


@pytest.fixture
def folder(tmp_path, ranges):
    """Three answers, and the statistics after the second."""
    place = tmp_path / "sample-0003"
    kept = SampleCheckpoint(place, SEAL)
    for call in range(3):
        kept.keep_answer(call, {name: value + call for name, value in ANSWER.items()})
        if call < 2:
            kept.keep_observed(call, ranges)
    return place


def flip(path):
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def of(folder, words):
    (path,) = folder.glob(words)
    return path


def test_what_is_kept_comes_back(folder, ranges):
    kept = SampleCheckpoint(folder, SEAL)
    assert kept.damage == ""
    assert torch.equal(kept.answer(2)["sample"], ANSWER["sample"] + 2)
    assert kept.answer(3) is None
    call, found = kept.observed()
    assert (call, dump_ranges(found)) == (1, dump_ranges(ranges))
    assert not kept.is_finished
    kept.keep_finished(ranges)
    again = SampleCheckpoint(folder, SEAL)
    assert dump_ranges(again.finished) == dump_ranges(ranges)
    assert again.observed() is None
    assert len(list(folder.iterdir())) == 4


@pytest.mark.parametrize("change", [flip, cut, lambda path: path.write_bytes(b"")])
def test_damaged_statistics_are_dropped_and_answers_stay(folder, change):
    change(of(folder, "observed-*"))
    kept = SampleCheckpoint(folder, SEAL)
    assert kept.observed() is None
    assert kept.answer(2) is not None
    assert "observed-000001" in kept.damage
    assert SampleCheckpoint(folder, SEAL).damage == ""


@pytest.mark.parametrize("change", [flip, cut, lambda path: path.unlink()])
def test_statistics_without_every_answer_before_them_are_dropped(folder, change):
    change(of(folder, "000000-*"))
    kept = SampleCheckpoint(folder, SEAL)
    assert kept.damage
    assert kept.answer(0) is None
    assert kept.observed() is None
    assert kept.answer(1) is not None


def test_an_answer_after_the_statistics_may_be_missing(folder):
    of(folder, "000002-*").unlink()
    kept = SampleCheckpoint(folder, SEAL)
    assert (kept.damage, kept.observed()[0]) == ("", 1)


@pytest.mark.parametrize(
    "seal", [Seal("other calls", SEAL.statistics), Seal(SEAL.answers, "other sites")]
)
def test_what_belongs_to_another_sample_or_calibration_is_not_used(folder, seal):
    kept = SampleCheckpoint(folder, seal)
    assert "does not have its SHA-256" in kept.damage
    assert kept.observed() is None


def test_an_answer_under_the_number_of_another_call_is_not_used(folder):
    path = of(folder, "000002-*")
    path.rename(path.with_name(path.name.replace("000002", "000001")))
    kept = SampleCheckpoint(folder, SEAL)
    assert "000001" in kept.damage
    assert torch.equal(kept.answer(1)["sample"], ANSWER["sample"] + 1)


def test_strange_files_and_links_are_removed_and_said(folder, tmp_path):
    (tmp_path / "mine").write_text("mine")
    (folder / "notes.txt").symlink_to(tmp_path / "mine")
    assert "notes.txt" in SampleCheckpoint(folder, SEAL).damage
    assert (tmp_path / "mine").read_text() == "mine"
    assert SampleCheckpoint(folder, SEAL).damage == ""


def test_what_a_kill_left_half_written_is_no_damage(folder, ranges):
    path = of(folder, "000002-*")
    path.rename(path.with_name(f".{path.name}.qdx-123-0"))
    older = of(folder, "observed-*")
    shutil.copy(older, folder.parent / "kept")
    SampleCheckpoint(folder, SEAL).keep_answer(2, ANSWER)
    SampleCheckpoint(folder, SEAL).keep_observed(2, ranges)
    shutil.copy(
        folder.parent / "kept", older
    )  # killed between writing the new and removing the old
    kept = SampleCheckpoint(folder, SEAL)
    assert (kept.damage, kept.observed()[0]) == ("", 2)
    assert not older.exists()
    assert not list(folder.glob(".*"))


def test_answers_alone_can_be_read_and_make_no_folder(folder, tmp_path):
    before = sorted(folder.iterdir())
    other = Seal(SEAL.answers, "another pass of the same sample")
    kept = KeptAnswers(folder, other)
    assert (kept.damage, kept.answer(1) is None) == ("", False)
    assert sorted(folder.iterdir()) == before
    assert KeptAnswers(tmp_path / "none", SEAL).answer(1) is None
    assert not (tmp_path / "none").exists()


def _first(words, change):
    def damage(work):
        change(sample_files(work, words)[0])

    return damage


def _of_another_sample(work):
    """The statistics of the other sample, under a name that was right there."""
    own, other = sample_files(work, "finished-*")[0], sample_files(work, "observed-*")[0]
    other.unlink()
    shutil.copy(own, other.parent / own.name)


@pytest.mark.parametrize(
    "damage",
    [
        _first("0*", flip),
        _first("observed-*", flip),
        _first("observed-*", cut),
        _first("finished-*", flip),
        lambda work: sample_files(work / "sample-0001", "0*")[0].unlink(),
        _of_another_sample,
    ],
    ids=["answer", "statistics", "cut", "finished", "missing", "another's"],
)
def test_a_damaged_checkpoint_is_said_and_ends_with_the_same_bits(
    ddpm, told, often, monkeypatch, tmp_path, damage
):
    whole = _whole(ddpm)
    with monkeypatch.context() as patch, pytest.raises(Ended):
        calibrated(ddpm, work=tmp_path, progress=Told().hear(patch, end_after=7))
    damage(tmp_path)
    assert dump_ranges(calibrated(ddpm, work=tmp_path, progress=told)) == whole
    assert told.says("is damaged and is made again") == 1


_KEPT: dict[int, bytes] = {}


def _whole(one):
    """The bytes of a calibration that nothing interrupts."""
    if id(one) not in _KEPT:
        _KEPT[id(one)] = dump_ranges(calibrated(one))
    return _KEPT[id(one)]
