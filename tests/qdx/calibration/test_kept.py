"""Calibrations kept between runs: read, gone on with, or recorded without the cache, and never in silence."""

from __future__ import annotations

import os

import pytest

from qdx.cache.keys import key_of
from qdx.cache.store import Store
from qdx.calibration.kept import Kept, kept_ranges
from qdx.exporter.calibrate.ranges_file import dump_ranges
from qdx.exporter.errors import UsageError
from tests.support.calibrating import Told
from tests.support.processes import on_disk, running
from tests.support.recording import recorded

PARTS = {"model": "one"}
KEY = key_of(PARTS)
_HOLD = f"""
with store.working("calibration", "{KEY}") as place:
    (place / "held").touch()
    ready.touch()
    time.sleep(60)
"""


@pytest.fixture(scope="module")
def ranges():
    return recorded()[0]


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "cache" / "v1")


@pytest.fixture
def places():
    return []


@pytest.fixture
def record(ranges, places):
    """Records, and tells where and what was there already."""

    def run(place):
        places.append((place, sorted(path.name for path in place.iterdir())))
        (place / "done").touch()
        return ranges

    return run


def test_the_second_time_they_are_read_and_that_is_said(store, ranges, record, places, told):
    first = kept_ranges(PARTS, record, Kept(store), told)
    assert (len(places), told.said) == (1, [])
    again = kept_ranges(PARTS, record, Kept(Store(store.root)), told)
    assert len(places) == 1
    assert dump_ranges(first) == dump_ranges(again) == dump_ranges(ranges)
    assert told.says("taken from the cache") == 1
    assert {entry.state for entry in store.entries()} == {"complete"}
    kept_ranges({"model": "other"}, record, Kept(store), told)
    assert len(places) == 2


def test_what_was_read_can_be_evicted(store, record):
    kept_ranges(PARTS, record, Kept(store), Told())
    kept_ranges(PARTS, record, Kept(store), Told())
    assert Store(store.root).clear().in_use == 0


def test_an_interrupted_one_goes_on_in_its_folder_and_fresh_begins_anew(store, record, places):
    def interrupted(place):
        (place / "half").touch()
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            kept_ranges(PARTS, interrupted, Kept(store), Told())
    kept_ranges(PARTS, record, Kept(store), Told())
    assert "half" in places[0][1]
    with pytest.raises(KeyboardInterrupt):
        kept_ranges(PARTS, interrupted, Kept(store, fresh=True), Told())
    kept_ranges(PARTS, record, Kept(store, fresh=True), Told())
    assert "half" not in places[1][1]


def test_nothing_is_kept_without_a_store(record, places, tmp_path):
    kept_ranges(PARTS, record, None, Told())
    assert not places[0][0].exists()


def test_a_damaged_file_is_made_anew_and_said(store, record, places, told):
    kept_ranges(PARTS, record, Kept(store), told)
    (path,) = store.root.rglob("ranges.qdx")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    lines = []
    kept_ranges(PARTS, record, Kept(Store(store.root, tell=lines.append)), told)
    assert len(places) == 2
    assert any("damaged" in line for line in (*lines, *told.said))
    kept_ranges(PARTS, record, Kept(store), told)
    assert len(places) == 2


def test_a_second_process_is_told_who_works_on_it_and_loses_nothing(
    store, record, places, tmp_path
):
    ready = tmp_path / "ready"
    with running(_HOLD, store.root, ready) as other:
        for fresh in (False, True):
            with pytest.raises(UsageError, match=f"process {other.pid} works on the same") as found:
                kept_ranges(PARTS, record, Kept(store, fresh=fresh), Told())
            assert found.value.hint
        assert places == []
        (held,) = store.root.rglob("held")
        assert held.exists()
        kept_ranges(PARTS, record, None, Told())  # as the hint says
    kept_ranges(PARTS, record, Kept(store), Told())
    assert "held" in places[-1][1]


def test_one_that_another_process_finished_meanwhile_is_not_recorded_again(
    store, record, places, monkeypatch
):
    find = Store.find
    asked = []

    def late(self, kind, key):
        """At the first look it is not there; by the second another process has finished."""
        asked.append(kind)
        if len(asked) == 1:
            kept_ranges(PARTS, record, Kept(Store(store.root)), Told())
            return None
        return find(self, kind, key)

    monkeypatch.setattr(Store, "find", late)
    kept_ranges(PARTS, record, Kept(store), Told())
    assert len(places) == 1
    assert {entry.state for entry in store.entries()} == {"complete"}


def test_the_folder_is_ones_own_until_it_is_removed(store, ranges):
    """Between the end of the work and its removal nobody may come in and be the reason for an error."""
    taken = []
    original = Store.remove_working

    def remove(self, kind, key):
        with pytest.raises(UsageError), Store(store.root).working(kind, key):
            raise AssertionError
        taken.append(key)
        original(self, kind, key)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "remove_working", remove)
        kept_ranges(PARTS, lambda _place: ranges, Kept(store), Told())
    assert taken == [KEY]


_ON_FULL_DISK = """
import os
from qdx.calibration.kept import Kept, kept_ranges
from qdx.exporter.calibrate.ranges_file import dump_ranges
from tests.support.recording import recorded
from tests.support.calibrating import Told
ranges = recorded()[0]
told, places = Told(), []
with open(os.environ["DISK"] + "/filler", "wb", buffering=0) as filler:
    try:
        while True:
            filler.write(b"0" * 4096)
    except OSError:
        pass
def record(place):
    places.append(str(place))
    return ranges
store._tell = told.say
found = kept_ranges({"model": "one"}, record, Kept(store), told)
assert dump_ranges(found) == dump_ranges(ranges)
print(len(places), *told.said, sep="\\n")
"""


@pytest.mark.parametrize("options", ["size=64k", "size=1m,nr_inodes=2"])
def test_a_full_disk_is_said_and_the_calibration_goes_on_without_the_cache(options):
    done = on_disk(_ON_FULL_DISK, options=options)
    assert done.returncode == 0, done.stderr
    count, *said = done.stdout.splitlines()
    assert count == "1"
    assert any("without the cache" in line or "nothing is kept" in line for line in said), said


def test_the_message_of_the_other_process_is_no_message_of_this_one(store):
    """Within one process too, the folder is taken once."""
    with store.working("calibration", KEY), pytest.raises(UsageError, match=str(os.getpid())):
        kept_ranges(
            PARTS, lambda _place: pytest.fail("it must not begin"), Kept(Store(store.root)), Told()
        )
