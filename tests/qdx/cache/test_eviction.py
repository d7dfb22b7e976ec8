"""The store stays below its limit: what is longest unused goes first, what is in use stays."""

from __future__ import annotations

import os
import time
from types import SimpleNamespace

import pytest

from qdx.cache import contents
from qdx.cache.store import Store
from tests.support.processes import KEY, add

KEYS = [f"{number:064x}" for number in range(8)]
AGE_S = 3600


def age(store, **seconds):
    """Sets how long ago entries were used, by their number in `KEYS`."""
    for name, ago in seconds.items():
        path = store.root / "numbers" / KEYS[int(name.removeprefix("k"))]
        os.utime(path, (time.time() - ago,) * 2)


def keys(store):
    return {KEYS.index(entry.key) for entry in store.entries() if entry.state == "complete"}


def entry_bytes(store):
    add(store, key=KEYS[0])
    return store.size_bytes


def test_the_longest_unused_goes_first(store):
    limit = int(entry_bytes(store) * 3.5)
    small = Store(store.root, limit_bytes=limit)
    for number in (1, 2):
        add(small, key=KEYS[number])
    age(store, k0=3 * AGE_S, k1=2 * AGE_S, k2=AGE_S)
    small.find("numbers", KEYS[0])  # which makes it the one used last
    small.release("numbers", KEYS[0])
    age(store, k0=AGE_S / 2)
    add(small, key=KEYS[3])

    assert keys(store) == {0, 2, 3}
    assert store.size_bytes <= limit
    assert small.notes == []


def test_finding_counts_as_use(store):
    add(store, key=KEYS[0])
    age(store, k0=AGE_S)
    before = time.time()
    store.find("numbers", KEYS[0])

    assert store.entries()[0].used_at >= before - 1


def test_the_young_and_the_held_stay_and_the_new_one_is_not_kept(store):
    small = Store(store.root, limit_bytes=int(entry_bytes(store) * 2.5))
    add(small, key=KEYS[1])
    assert small.find("numbers", KEYS[1])
    age(store, k1=AGE_S)  # held, and old; the other is young
    add(small, key=KEYS[2])

    assert keys(store) == {0, 1}
    assert "an entry is not kept" in small.notes[0]
    small.release("numbers", KEYS[1])
    add(small, key=KEYS[2])
    assert keys(store) == {0, 2}


def test_work_under_way_goes_last(store):
    one = entry_bytes(store)
    with store.working("numbers", KEYS[1]) as folder:
        (folder / "step").write_bytes(b"x" * one)
    age(store, k0=AGE_S)
    os.utime(store.root / "numbers" / f"{KEYS[1]}.working", (0, time.time() - 2 * AGE_S))
    small = Store(store.root, limit_bytes=int(one * 2.5))
    add(small, key=KEYS[2])
    assert keys(store) == {2}
    assert len(store.entries()) == 2
    age(store, k2=1)
    add(small, key=KEYS[3])

    assert keys(store) == {2, 3}
    assert len(store.entries()) == 2


def test_an_entry_larger_than_the_limit_evicts_nothing(store):
    add(store, key=KEYS[0])
    age(store, k0=AGE_S)
    add(Store(store.root, limit_bytes=10), key=KEYS[1])

    assert keys(store) == {0}


def test_it_never_takes_more_than_half_of_what_would_be_free(store, monkeypatch):
    one = entry_bytes(store)
    usage = SimpleNamespace(free=2 * one)
    monkeypatch.setattr(contents.shutil, "disk_usage", lambda _path: usage)
    age(store, k0=AGE_S)
    add(store, key=KEYS[1])

    assert keys(store) == {1}


def test_what_other_processes_add_counts_too(store):
    one = entry_bytes(store)
    limit = int(one * 4.5)
    first, second = Store(store.root, limit_bytes=limit), Store(store.root, limit_bytes=limit)
    for number, each in enumerate([first, second, first, second, first, second, first]):
        add(each, key=KEYS[number + 1])
        age(store, **{f"k{n}": AGE_S - n for n in keys(store)})

    assert store.size_bytes <= limit


def test_foreign_files_are_no_entries_and_stay(store):
    add(store)
    (store.root / "numbers" / "notes.txt").write_bytes(b"mine")
    (store.root / "My Things").mkdir()
    (store.root / "numbers" / "mine").mkdir()

    assert store.clear().entries == 1
    assert store.entries() == []
    assert {path.name for path in store.root.rglob("*")} == {"numbers", "notes.txt", "My Things", "mine"}  # fmt: skip


def test_one_kind_is_cleared(store):
    add(store)
    add(store, kind="letters")
    cleared = store.clear("letters")

    assert (cleared.entries, cleared.in_use) == (1, 0)
    assert cleared.size_bytes > 600
    assert [entry.kind for entry in store.entries()] == ["numbers"]


def test_an_empty_store_has_nothing(store):
    assert (store.entries(), store.size_bytes, store.clear().entries) == ([], 0, 0)
    assert not store.root.exists()


@pytest.mark.parametrize("kind", ["numbers", None])
def test_what_this_process_holds_is_not_cleared(store, kind):
    add(store)
    store.find("numbers", KEY)

    assert store.clear(kind).in_use == 1
    store.release("numbers", KEY)
    assert store.clear(kind).entries == 1
