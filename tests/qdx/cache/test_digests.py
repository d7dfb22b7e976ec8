"""The digest of a file that has not changed is not computed again; of one that has, it is."""

from __future__ import annotations

import hashlib
import os
import time

import pytest

from qdx.cache import digests
from qdx.cache.digests import file_digest
from qdx.exporter.errors import InvalidModel
from qdx.exporter.files import sha256_file

DATA = bytes(range(256)) * 8192


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(DATA)
    return path


@pytest.fixture
def settled(monkeypatch):
    """As if files had lain for a while."""
    monkeypatch.setattr(digests, "_SETTLED_NS", -1)


@pytest.fixture
def read(monkeypatch):
    """The files that were read whole."""
    found = []

    def reading(path, **options):
        found.append(path)
        return sha256_file(path, **options)

    monkeypatch.setattr(digests, "sha256_file", reading)
    return found


def test_a_file_is_read_once(store, file, settled, read):
    expected = hashlib.sha256(DATA).hexdigest()

    assert [file_digest(file, store) for _ in range(3)] == [expected] * 3
    assert read == [file]


def test_without_a_store_it_is_read_each_time(file, read):
    assert file_digest(file, None) == file_digest(file, None)
    assert len(read) == 2


def test_a_file_that_was_just_changed_is_read_again(store, file, read):
    file_digest(file, store)
    file_digest(file, store)

    assert len(read) == 2


def change_in_place(path):
    """The same size, and the old time of change put back."""
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    with path.open("r+b") as out:
        out.write(b"x")
    os.utime(path, ns=times)


def replace(path):
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    other = path.with_name("other")
    other.write_bytes(DATA[::-1])
    os.utime(other, ns=times)
    other.replace(path)


def grow(path):
    path.write_bytes(DATA + b"x")


@pytest.mark.parametrize("change", [change_in_place, replace, grow], ids=lambda one: one.__name__)
def test_every_change_shows(store, file, settled, change):
    file_digest(file, store)
    time.sleep(0.02)  # a tick of the file system's clock
    change(file)

    assert file_digest(file, store) == hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
def test_links_are_refused_as_ever(store, file, settled, link):
    file_digest(file, store)
    other = file.with_name("link")
    getattr(other, link)(file)

    with pytest.raises(InvalidModel, match="link"):
        file_digest(other, store)


def test_a_missing_file(store, tmp_path):
    with pytest.raises(InvalidModel, match="not found"):
        file_digest(tmp_path / "none", store)


def test_small_files_are_not_worth_an_entry(store, tmp_path, settled):
    (tmp_path / "small").write_bytes(b"x")

    assert file_digest(tmp_path / "small", store) == hashlib.sha256(b"x").hexdigest()
    assert store.entries() == []
