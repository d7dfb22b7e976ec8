"""Two processes in the same store: whatever one does between any two steps of the other, neither notices.

What a user would notice is a line in `notes`, an error, a hidden folder that stays, or half an entry.
"""

from __future__ import annotations

import itertools
import os
import time

import pytest

from qdx.cache.contents import evict
from qdx.cache.store import Store
from tests.support.interleaving import each_interleaving
from tests.support.processes import KEY, add, files, hidden


def find(store):
    found = store.find("numbers", KEY)
    if found is not None:
        assert len(files(found)) == 3
    store.release("numbers", KEY)


def clear(store):
    store.clear()


def evict_all(store):
    evict(store.root, 2**40)


def work(store):
    with store.working("numbers", KEY) as folder:
        (folder / "step").write_bytes(b"x")
        assert files(folder)["step"] == b"x"
        store.remove_working("numbers", KEY)


def remove_work(store):
    store.remove_working("numbers", KEY)


USES = [add, find, clear, evict_all, work, remove_work]
TAKING_WORK = {work, remove_work}
# Who takes work that another one has locked, to work there or to remove it, is to be told so.
PAIRS = [
    (first, second)
    for first, second in itertools.product(USES, USES)
    if first in {add, find} or second not in TAKING_WORK
]


def leave_an_old_entry(store):
    add(store)
    with store.working("numbers", KEY) as folder:
        (folder / "step").write_bytes(b"old")
    for entry in store.entries():
        os.utime(entry.path, (time.time() - 3600,) * 2)


def leave_nothing(_store):
    pass


@pytest.mark.parametrize("leave", [leave_nothing, leave_an_old_entry])
@pytest.mark.parametrize(("first", "second"), PAIRS, ids=lambda use: use.__name__)
def test_a_process_in_the_middle_of_another_one(memory_path, first, second, leave):
    roots = (memory_path / str(number) / "v1" for number in itertools.count())
    stores = []

    def prepare():
        root = next(roots)
        leave(Store(root))
        stores[:] = Store(root), Store(root), Store(root)
        return (lambda: first(stores[0])), (lambda: second(stores[1]))

    for where in each_interleaving(prepare):
        find(stores[2])
        assert [store.notes for store in stores] == [[], [], []], where
        assert hidden(stores[0].root) == [], where
