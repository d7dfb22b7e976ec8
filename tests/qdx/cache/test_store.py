"""Entries are complete or absent, checked when found, and those of their name."""

from __future__ import annotations

import os
import resource
import shutil
from pathlib import Path

import pytest

from qdx.cache.store import Store
from qdx.exporter.errors import InternalError, StorageError, UsageError
from tests.support.processes import KEY, OTHER_KEY, add, files, fill, hidden, on_disk


def test_an_entry_is_found_as_it_was_added(store):
    assert store.find("numbers", KEY) is None
    add(store)
    found = store.find("numbers", KEY)

    assert {name: data for name, data in files(found).items() if name != "entry.json"} == {
        "a.bin": b"one" * 100,
        "deep/b.bin": b"two" * 100,
    }
    assert store.find("numbers", OTHER_KEY) is None
    assert store.find("letters", KEY) is None
    assert (store.notes, hidden(store.root)) == ([], [])


def test_only_the_user_may_open_it(store):
    add(store)

    assert store.root.stat().st_mode & 0o777 == 0o700
    assert store.find("numbers", KEY).stat().st_mode & 0o777 == 0o700


def test_an_entry_whose_adding_fails_is_absent(store):
    def fail():
        with store.adding("numbers", KEY) as folder:
            fill(folder)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()

    assert store.find("numbers", KEY) is None
    assert hidden(store.root) == []


def test_the_first_entry_of_a_name_stays(store):
    add(store, text="first")
    with Store(store.root).adding("numbers", KEY) as folder:
        fill(folder, "later")

    assert (store.find("numbers", KEY) / "a.bin").read_bytes() == b"first" * 100


def flip_a_bit(entry):
    data = bytearray((entry / "a.bin").read_bytes())
    data[7] ^= 1
    (entry / "a.bin").write_bytes(data)


def cut_short(entry):
    os.truncate(entry / "a.bin", 10)


def swap_files(entry):
    one, two = (entry / "a.bin").read_bytes(), (entry / "deep" / "b.bin").read_bytes()
    (entry / "a.bin").write_bytes(two)
    (entry / "deep" / "b.bin").write_bytes(one)


def swap_entries(entry):
    """Another complete entry under this name."""
    other = entry.parent / OTHER_KEY
    shutil.rmtree(entry)
    shutil.copytree(other, entry)


def replace_a_file_by_a_link(entry):
    (entry / "a.bin").rename(entry.parent / "aside")
    (entry / "a.bin").symlink_to("../aside")


def link_a_file_twice(entry):
    (entry.parent / "aside").hardlink_to(entry / "a.bin")


def add_a_file(entry):
    (entry / "deep" / "foreign").write_bytes(b"")


def remove_a_file(entry):
    (entry / "deep" / "b.bin").unlink()


def remove_the_listing(entry):
    (entry / "entry.json").unlink()


def empty_the_listing(entry):
    (entry / "entry.json").write_bytes(b"{}")


def spoil_the_listing(entry):
    (entry / "entry.json").write_bytes(b"\x80\x04K\x01.")


FAULTS = [
    flip_a_bit,
    cut_short,
    swap_files,
    swap_entries,
    replace_a_file_by_a_link,
    link_a_file_twice,
    add_a_file,
    remove_a_file,
    remove_the_listing,
    empty_the_listing,
    spoil_the_listing,
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("held", [False, True], ids=["fresh", "held"])
def test_a_damaged_entry_is_removed_and_said_and_added_again(store, fault, held):
    add(store)
    add(store, key=OTHER_KEY, text="other")
    entry = store.root / "numbers" / KEY
    if held:
        assert store.find("numbers", KEY) == entry
    fault(entry)

    assert store.find("numbers", KEY) is None
    assert not entry.exists()
    (note,) = store.notes
    assert note.startswith("cache: a damaged entry was removed: ")
    assert KEY in note
    add(store, text="again")
    assert (store.find("numbers", KEY) / "a.bin").read_bytes() == b"again" * 100
    assert len(store.notes) == 1


def test_a_link_in_place_of_an_entry_is_removed_and_what_it_leads_to_is_not(store, tmp_path):
    add(store)
    entry = store.root / "numbers" / KEY
    entry.rename(tmp_path / "outside")
    entry.symlink_to(tmp_path / "outside")

    assert store.find("numbers", KEY) is None
    assert not os.path.lexists(entry)
    assert (tmp_path / "outside" / "a.bin").read_bytes() == b"one" * 100
    assert "was removed" in store.notes[0]


def test_a_file_in_place_of_an_entry_is_removed(store):
    add(store)
    entry = store.root / "numbers" / KEY
    shutil.rmtree(entry)
    entry.write_bytes(b"x")

    assert store.find("numbers", KEY) is None
    add(store)
    assert store.find("numbers", KEY) == entry


def test_a_linked_kind_is_not_used(store, tmp_path):
    add(store)
    (store.root / "numbers").rename(tmp_path / "outside")
    (store.root / "numbers").symlink_to(tmp_path / "outside")
    fresh = Store(store.root)

    assert fresh.find("numbers", KEY) is None
    add(fresh, key=OTHER_KEY)
    assert "symbolic link" in fresh.notes[0]
    assert [path.name for path in (tmp_path / "outside").iterdir()] == [KEY]


def test_links_inside_are_our_own_defect(store):
    with pytest.raises(InternalError, match="link"), store.adding("numbers", KEY) as folder:
        (folder / "a").symlink_to("/dev/null")

    assert store.find("numbers", KEY) is None


@pytest.mark.parametrize("kind", ["", ".", "..", "a/b", "A", "a_b", "-a", "x" * 65, "a\n", "ä"])
def test_a_wrong_kind(store, kind):
    for use in (store.find, store.adding, store.working, store.remove_working):
        with pytest.raises(UsageError, match="not a kind"):
            entered(use(kind, KEY))


@pytest.mark.parametrize("key", ["", "..", KEY[:-1], KEY + "0", KEY.upper(), KEY[:-1] + "\n"])
def test_a_wrong_key(store, key):
    for use in (store.find, store.adding, store.working, store.remove_working):
        with pytest.raises(UsageError, match="not a key"):
            entered(use("numbers", key))


def entered(context):
    if hasattr(context, "__enter__"):
        with context:
            pass


def test_a_root_that_is_a_link(tmp_path):
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "v1").symlink_to(tmp_path / "real")

    with pytest.raises(UsageError, match="is a link"):
        Store(tmp_path / "v1")


def test_a_root_that_others_may_write(tmp_path):
    (tmp_path / "v1").mkdir()
    (tmp_path / "v1").chmod(0o770)

    with pytest.raises(UsageError, match="open to other users") as caught:
        Store(tmp_path / "v1")
    assert "chmod 700" in caught.value.hint


def test_a_root_of_another_user(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root gives a folder away")
    (tmp_path / "v1").mkdir(mode=0o700)
    os.chown(tmp_path / "v1", 12345, -1)

    with pytest.raises(UsageError, match="belongs to user 12345"):
        Store(tmp_path / "v1")


@pytest.mark.parametrize("name", ["file", "file/v1"])
def test_a_file_in_place_of_the_root(tmp_path, name):
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(UsageError, match="expected the folder of the cache"):
        Store(tmp_path / name)


NO_ROOM = """
import os
with store.adding("numbers", KEY) as folder:
    (folder / "small").write_bytes(b"x" * 100)
with store.adding("numbers", KEY[::-1]) as folder:
    (folder / "large").write_bytes(b"x" * 1_000_000)
    raise AssertionError("there is room")
print(len(store.entries()), *store.notes, sep="\\n")
assert not list(root.rglob(".*"))
assert store.find("numbers", KEY)
assert store.find("numbers", KEY[::-1]) is None
"""


def test_a_full_disk_is_a_note_and_no_error():
    done = on_disk(NO_ROOM, options="size=256k")

    assert done.returncode == 0, done.stderr
    count, note = done.stdout.splitlines()
    assert count == "1"
    assert note.endswith("No space left on device")


READ_ONLY = """
import os, subprocess
with store.adding("numbers", KEY) as folder:
    (folder / "small").write_bytes(b"x" * 100)
subprocess.run(["mount", "-o", "remount,ro", os.environ["DISK"]], check=True)
store = Store(root)
for _ in range(2):
    with store.adding("numbers", KEY[::-1]) as folder:
        (folder / "small").write_bytes(b"x")
assert store.find("numbers", KEY)
assert store.find("numbers", KEY[::-1]) is None
print(*store.notes, sep="\\n")
from qdx.exporter.errors import StorageError
try:
    with store.working("numbers", KEY):
        pass
except StorageError as bad:
    print(bad.message, bad.hint, sep="\\n")
"""


def test_a_read_only_store_is_read_and_said_to_keep_nothing_once():
    done = on_disk(READ_ONLY, options="size=256k")

    assert done.returncode == 0, done.stderr
    note, message, hint = done.stdout.splitlines()
    assert note.startswith("cache: nothing is kept in ")
    assert note.endswith("Read-only file system")
    assert "cannot keep work under way" in message
    assert "QDX_CACHE" in hint


def test_a_root_that_cannot_be_made_is_a_note_and_no_error():
    store = Store(Path("/proc/cache/v1"))
    add(store)

    assert store.find("numbers", KEY) is None
    assert (store.entries(), store.size_bytes, store.clear().entries) == ([], 0, 0)
    (note,) = store.notes
    assert note.startswith("cache: nothing is kept in `/proc/cache/v1`: ")


def test_a_limit_on_file_sizes_is_a_note_and_no_error(store):
    """A write fails in the middle of a file, in a process of its own."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
            with store.adding("numbers", KEY) as folder:
                (folder / "large").write_bytes(b"x" * 100_000)
                os._exit(2)
            status = 0 if store.find("numbers", KEY) is None and len(store.notes) == 1 else 3
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert hidden(store.root) == []


def test_other_errors_of_writing_are_errors(store):
    with pytest.raises(IsADirectoryError), store.adding("numbers", KEY) as folder:
        folder.write_bytes(b"")

    with pytest.raises(StorageError), store.adding("numbers", KEY):
        raise StorageError("another one")
