"""Files are added to a bundle in one step: it is the old one or the new one."""

from __future__ import annotations

import os
import signal

import pytest

from qdx.bundle.amend import amend
from qdx.bundle.reader import read_bundle
from qdx.exporter.errors import InvalidBundle, StorageError
from tests.support.bundles import hidden, snapshot, write
from tests.support.watching import in_child, observing

ADDED = "unet/added.bin"


def add(bundle, *, without=()):
    with amend(bundle, without=without) as amendment:
        (amendment.root / ADDED).write_bytes(b"added")
        amendment.versions["adder"] = "1"


def test_what_is_added_is_listed_and_the_rest_stays(memory_path):
    old = read_bundle(write(memory_path / "bundle"))

    add(old)

    new = read_bundle(old.path)
    assert [one.path for one in new.manifest.files if one not in old.manifest.files] == [ADDED]
    assert new.manifest.versions == {"adder": "1", "torch": "2.13.0"}
    kept = {"files", "versions", "content_sha256"}
    assert new.manifest.model_dump(exclude=kept) == old.manifest.model_dump(exclude=kept)
    assert hidden(memory_path) == []


def test_what_is_left_out_is_gone(memory_path):
    bundle = read_bundle(write(memory_path / "bundle"))

    add(bundle, without=["unet/model.onnx_data"])

    assert not (bundle.path / "unet" / "model.onnx_data").exists()
    read_bundle(bundle.path)


def test_an_error_leaves_the_bundle_as_it_was(memory_path):
    bundle = read_bundle(write(memory_path / "bundle"))
    before = snapshot(bundle.path)

    def fail():
        with amend(bundle) as amendment:
            (amendment.root / ADDED).write_bytes(b"added")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()

    assert snapshot(bundle.path) == before
    assert hidden(memory_path) == []


def test_a_file_that_changed_meanwhile_is_refused(memory_path):
    bundle = read_bundle(write(memory_path / "bundle"))
    (bundle.path / "unet" / "model.onnx").write_bytes(b"graph NEW")

    with pytest.raises(InvalidBundle, match="altered"):
        add(bundle)

    assert not (bundle.path / ADDED).exists()


def test_a_kill_at_any_step_leaves_the_old_bundle_or_the_new_one(memory_path):
    recorded, steps = read_bundle(write(memory_path / "recorded")), []
    with observing(steps.append):
        add(recorded)
    states = {True: snapshot(memory_path / "recorded"), False: snapshot(write(memory_path / "old"))}

    for number in range(len(steps)):
        output = write(memory_path / f"bundle{number}")
        seen = []

        def kill(step, seen=seen, number=number):
            seen.append(step)
            if len(seen) == number + 1:
                os.kill(os.getpid(), signal.SIGKILL)

        def body(output=output, kill=kill):
            bundle = read_bundle(output)
            with observing(kill):
                add(bundle)

        assert os.WTERMSIG(in_child(body)) == signal.SIGKILL
        assert snapshot(output) == states[(output / ADDED).exists()]


def test_a_full_disk_leaves_the_old_bundle(memory_path):
    bundle = read_bundle(write(memory_path / "bundle"))
    before = snapshot(bundle.path)

    def full(step):
        if step == "before write manifest":
            raise OSError(28, "No space left on device")

    with observing(full), pytest.raises(StorageError):
        add(bundle)

    assert snapshot(bundle.path) == before
