"""Jobs: each is computed once, whoever ends in between."""

from __future__ import annotations

import os
import signal

import pytest

from qdx.exporter.errors import StorageError
from qdx.sweep import jobs
from qdx.sweep.jobs import run_jobs
from qdx.sweep.results import Outcome, Results
from qdx.sweep.workers import Words

WORDS = Words("analysis", "part")
PARTS = [[f"{part}{job}".ljust(64, "0") for job in range(5)] for part in range(4)]
EVERY = [key for part in PARTS for key in part]


@pytest.fixture
def often(monkeypatch):
    """Results are written as soon as they are there."""
    monkeypatch.setattr(jobs, "_KEEP_EVERY_S", 0.0)


class Work:
    """Counts what is computed, in files that all processes see."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()

    def __call__(self, part, keys, found):
        for key in keys:
            (self.folder / f"{key}-{os.urandom(4).hex()}").touch()
            found(key, Outcome((float(int(key[:2])),)))

    @property
    def computed(self):
        return sorted(path.name.partition("-")[0] for path in self.folder.iterdir())


def values():
    return {key: Outcome((float(int(key[:2])),)) for key in EVERY}


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_every_job_is_computed_once_and_told(tmp_path, workers):
    told, work = [], Work(tmp_path / "work")
    results = Results(tmp_path / "results")
    run_jobs(PARTS, work, results, words=WORDS, workers=workers, tell=told.append)

    assert work.computed == sorted(EVERY)
    assert results.known == values()
    assert sorted(key for message in told for key in message["done"]) == sorted(EVERY)
    assert all(message["seconds"] >= 0 for message in told)


def test_jobs_that_come_twice_are_computed_once(tmp_path):
    work = Work(tmp_path / "work")
    results = Results(tmp_path / "results")
    twice = [[*PARTS[0], *PARTS[0]], PARTS[0], *PARTS[1:], PARTS[2]]
    run_jobs(twice, work, results, words=WORDS, workers=2, tell=lambda _: None)

    assert work.computed == sorted(EVERY)
    assert results.known == values()


def test_what_is_known_is_not_computed_again(tmp_path):
    results = Results(tmp_path / "results")
    results.add({key: value for key, value in values().items() if key in PARTS[0][:3] + PARTS[2]})
    work = Work(tmp_path / "work")
    run_jobs(PARTS, work, results, words=WORDS, workers=2, tell=lambda _: None)

    assert work.computed == sorted(PARTS[0][3:] + PARTS[1] + PARTS[3])
    assert results.known == values()


def test_a_worker_that_is_killed_is_repeated_and_nothing_it_had_found_is_lost(tmp_path, often):
    work = Work(tmp_path / "work")
    parent = os.getpid()

    def killed_once(part, keys, found):
        for number, key in enumerate(keys):
            if part == 1 and number == 3 and not (tmp_path / "killed").exists():
                (tmp_path / "killed").touch()
                assert os.getpid() != parent
                os.kill(os.getpid(), signal.SIGKILL)
            work(part, [key], found)

    results = Results(tmp_path / "results")
    run_jobs(PARTS, killed_once, results, words=WORDS, workers=2, tell=lambda _: None)

    assert (tmp_path / "killed").exists()
    assert work.computed == sorted(
        EVERY
    )  # the first three of the part once, by the process that was killed
    assert results.known == values()


def test_a_part_that_is_killed_again_and_again_ends_the_sweep(tmp_path, often):
    def always(part, keys, found):
        (tmp_path / f"{part}-{os.urandom(4).hex()}").touch()
        if part == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        for key in keys:
            found(key, Outcome((1.0,)))

    results = Results(tmp_path / "results")
    with pytest.raises(StorageError, match="analysis: the process of part 2 was killed"):
        run_jobs(PARTS[:2], always, results, words=WORDS, workers=2, tell=lambda _: None)

    assert len(list(tmp_path.glob("1-*"))) == 3
    assert set(Results(tmp_path / "results").known) == set(PARTS[0])
