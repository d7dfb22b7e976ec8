"""Replacing a file: the earlier one, the whole new one, or none, whatever happens."""

from __future__ import annotations

import errno
import os

import pytest

from qdx.exporter import files
from qdx.exporter.errors import StorageError
from qdx.exporter.files import is_leftover, replace_file, write_new_file

OLD, NEW = b"old", b"new and longer"


@pytest.fixture
def path(tmp_path):
    (tmp_path / "file.bin").write_bytes(OLD)
    return tmp_path / "file.bin"


@pytest.mark.parametrize("content", [NEW, lambda file: file.write(NEW)], ids=["bytes", "writer"])
def test_a_file_is_replaced_and_nothing_else_is_left(path, content):
    replace_file(path, content)

    assert path.read_bytes() == NEW
    assert list(path.parent.iterdir()) == [path]


def test_a_new_file(tmp_path):
    replace_file(tmp_path / "x", NEW)

    assert (tmp_path / "x").read_bytes() == NEW


def test_a_file_that_must_be_new_takes_no_name_of_another(path):
    link = path.with_name("link")
    link.symlink_to(path.with_name("nowhere"))
    for taken in (path, link, path.parent):
        with pytest.raises(FileExistsError):
            write_new_file(taken, NEW)
    write_new_file(path.with_name("new"), NEW)

    assert (path.read_bytes(), path.with_name("new").read_bytes()) == (OLD, NEW)
    assert {one.name for one in path.parent.iterdir()} == {"file.bin", "link", "new"}


def test_a_file_that_must_be_new_does_not_replace_one_that_came_meanwhile(tmp_path, monkeypatch):
    path, fsync = tmp_path / "x", files.os.fsync

    def late(descriptor):
        path.write_bytes(OLD)
        fsync(descriptor)

    monkeypatch.setattr(files.os, "fsync", late)
    with pytest.raises(FileExistsError):
        write_new_file(path, NEW)

    assert path.read_bytes() == OLD
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("raised", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()])
def test_a_file_that_must_be_new_is_whole_or_absent(tmp_path, monkeypatch, raised):
    def fail(*_):
        raise raised

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(type(raised)):
        write_new_file(tmp_path / "x", NEW)

    assert not list(tmp_path.iterdir())


def test_an_interrupt_while_a_new_file_takes_its_name_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(files.Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_new_file(tmp_path / "x", NEW)

    assert not list(tmp_path.iterdir())


def interrupted(file):
    file.write(NEW[:3])
    raise KeyboardInterrupt


def full(file):
    file.write(NEW[:3])
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def wrong(file):
    file.write(NEW[:3])
    raise ValueError("a defect")


@pytest.mark.parametrize(
    ("content", "error"),
    [(interrupted, KeyboardInterrupt), (full, StorageError), (wrong, ValueError)],
)
def test_what_fails_in_the_middle_leaves_the_earlier_file_alone(path, content, error):
    with pytest.raises(error):
        replace_file(path, content)

    assert path.read_bytes() == OLD
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("at", ["fsync", "replace"])
@pytest.mark.parametrize(
    ("raised", "error"),
    [(OSError(errno.EIO, "Input/output error"), StorageError), (KeyboardInterrupt(), KeyboardInterrupt)],
)  # fmt: skip
def test_a_fault_of_the_disk_leaves_the_earlier_file_alone(path, monkeypatch, at, raised, error):
    def fail(*_):
        raise raised

    monkeypatch.setattr(files.os if at == "fsync" else files.Path, at, fail)
    with pytest.raises(error):
        replace_file(path, NEW)

    assert path.read_bytes() == OLD
    assert [one.name for one in path.parent.iterdir()] == ["file.bin"]


def test_the_content_is_on_the_disk_before_it_has_its_name_and_the_name_after(path, monkeypatch):
    done = []
    sync, move = os.fsync, files.Path.replace
    monkeypatch.setattr(files.os, "fsync", lambda fd: (done.append("sync"), sync(fd)))
    monkeypatch.setattr(files.Path, "replace", lambda a, b: (done.append("move"), move(a, b)))
    replace_file(path, NEW)

    assert done == ["sync", "move", "sync"]


@pytest.mark.parametrize("kind", ["a folder", "below a file", "in no folder"])
def test_a_place_that_cannot_be_written_is_a_storage_error_with_its_name(path, kind):
    place = {
        "a folder": path.parent,
        "below a file": path / "x",
        "in no folder": path.parent / "no" / "x",
    }[kind]
    with pytest.raises(StorageError, match=f"`{place}`: cannot be written, ") as caught:
        replace_file(place, NEW, hint="do so")

    assert caught.value.hint == "do so"
    assert [one.name for one in path.parent.iterdir()] == ["file.bin"]


def test_a_link_is_replaced_and_not_followed(path):
    link = path.with_name("link")
    link.symlink_to(path)
    replace_file(link, NEW)

    assert not link.is_symlink()
    assert (link.read_bytes(), path.read_bytes()) == (NEW, OLD)


def test_what_a_kill_left_is_known_by_its_name_and_in_nobody_s_way(path, monkeypatch):
    monkeypatch.setattr(files.Path, "replace", lambda *_: os._exit(9))
    if (child := os.fork()) == 0:
        replace_file(path, NEW)
    os.waitpid(child, 0)
    monkeypatch.undo()
    (left,) = (one for one in path.parent.iterdir() if one != path)

    assert is_leftover(left.name)
    assert not is_leftover(path.name)
    left.rename(
        path.parent / f".file.bin.qdx-{os.getpid()}-0"
    )  # the number of a process comes again
    replace_file(path, NEW)
    assert path.read_bytes() == NEW
