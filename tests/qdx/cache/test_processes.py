"""Several processes, and such that are killed in the middle."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from qdx.cache.store import Store
from qdx.exporter.errors import UsageError
from tests.support.processes import KEY, OTHER_KEY, add, hidden, kill, run, running

ADDING = """
with store.adding("numbers", KEY) as folder:
    (folder / "half").write_bytes(b"x" * 1000)
    ready.touch()
    time.sleep(600)
"""
READING = """
assert store.find("numbers", KEY)
ready.touch()
time.sleep(600)
"""
WORKING = """
with store.working("numbers", KEY) as folder:
    (folder / "step-1").write_bytes(b"x" * 1000)
    ready.touch()
    time.sleep(600)
"""


def grow_old(store):
    """All entries as if they were used an hour ago."""
    for entry in store.entries():
        os.utime(entry.path, (time.time() - 3600,) * 2)


def test_two_processes_add_the_same_entry(store, tmp_path):
    with running(ADDING, store.root, tmp_path / "ready") as other:
        add(store)
        assert store.find("numbers", KEY)
        assert len(hidden(store.root)) == 1
        kill(other)

    assert (store.find("numbers", KEY) / "a.bin").read_bytes() == b"one" * 100


def test_what_a_killed_process_was_adding_is_absent_and_cleaned_up(store, tmp_path):
    with running(ADDING, store.root, tmp_path / "ready") as other:
        add(store, key=OTHER_KEY)
        assert len(hidden(store.root)) == 1, "what another process fills is left alone"
        kill(other)
    fresh = Store(store.root)

    assert fresh.find("numbers", KEY) is None
    add(fresh, key="0" * 64)
    assert hidden(store.root) == []
    assert fresh.notes == []


def test_many_processes_at_once_leave_one_complete_entry(store):
    body = """
for _ in range(20):
    with store.adding("numbers", KEY) as folder:
        (folder / "a").write_bytes(b"x" * 10000)
    found = store.find("numbers", KEY)
    assert found is None or (found / "a").stat().st_size == 10000
    store.release("numbers", KEY)
    store.clear()
assert not store.notes, store.notes
"""
    with ThreadPoolExecutor(3) as threads:
        ended = list(threads.map(lambda _: run(body, store.root, "-"), range(3)))

    assert [(each.returncode, each.stderr) for each in ended] == [(0, "")] * 3
    assert hidden(store.root) == []


def test_what_another_process_reads_is_not_evicted(store, tmp_path):
    add(store)
    add(store, key=OTHER_KEY, text="old")
    with running(READING, store.root, tmp_path / "ready"):
        grow_old(store)
        small = Store(store.root, limit_bytes=2500)
        add(small, key="0" * 64)
        assert [entry.key for entry in store.entries()] == [KEY, "0" * 64]
        cleared = store.clear()
        assert (cleared.entries, cleared.in_use) == (1, 1)

    assert store.clear().entries == 1


def test_a_damaged_entry_that_another_process_reads_is_not_returned_and_not_pulled_away(
    store, tmp_path
):
    add(store)
    with running(READING, store.root, tmp_path / "ready"):
        (store.root / "numbers" / KEY / "a.bin").write_bytes(b"")
        assert store.find("numbers", KEY) is None
        assert "damaged entry is not used" in store.notes[0]
        assert (store.root / "numbers" / KEY).exists()


def test_work_of_another_process_is_refused_with_its_number(store, tmp_path):
    with running(WORKING, store.root, tmp_path / "ready") as other:
        for use in (store.working, store.remove_working):
            with pytest.raises(UsageError, match=f"process {other.pid} works on") as caught:
                enter(use("numbers", KEY))
            assert "wait" in caught.value.hint
        with store.working("numbers", OTHER_KEY):
            pass
        assert store.clear().in_use == 1


def test_work_survives_a_kill_and_is_found_again(store, tmp_path):
    with running(WORKING, store.root, tmp_path / "ready") as other:
        kill(other)

    with store.working("numbers", KEY) as folder:
        assert (folder / "step-1").read_bytes() == b"x" * 1000
        (folder / "step-2").write_bytes(b"y")
    with Store(store.root).working("numbers", KEY) as folder:
        assert sorted(path.name for path in folder.iterdir()) == ["step-1", "step-2"]
    assert store.find("numbers", KEY) is None, "work under way is no entry"


def test_work_that_fails_keeps_its_files(store):
    def fail():
        with store.working("numbers", KEY) as folder:
            (folder / "step-1").write_bytes(b"x")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()

    with store.working("numbers", KEY) as folder:
        assert (folder / "step-1").exists()


@pytest.mark.parametrize("inside", [True, False])
def test_finished_work_is_removed(store, inside):
    with store.working("numbers", KEY) as folder:
        (folder / "step-1").write_bytes(b"x")
        if inside:
            store.remove_working("numbers", KEY)
    store.remove_working("numbers", KEY)

    assert store.entries() == []
    assert list((store.root / "numbers").iterdir()) == []


def test_the_same_work_twice_in_one_process_is_refused(store):
    with (
        store.working("numbers", KEY),
        pytest.raises(UsageError, match=f"process {os.getpid()} works"),
        Store(store.root).working("numbers", KEY),
    ):
        pass


def enter(context):
    if context is not None:
        with context:
            pass
