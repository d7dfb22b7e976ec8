from __future__ import annotations

import contextlib
import errno
import inspect
import itertools
import os
import random
import resource
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

from qdx.bundle import operations, writer
from qdx.bundle.reader import read_bundle
from qdx.bundle.rename import rename_new
from qdx.bundle.writer import BundleWriter
from qdx.exporter.errors import InternalError, InvalidBundle, QdxError, StorageError, UsageError
from tests.support.bundles import MANIFEST, fill, hidden, snapshot, write
from tests.support.watching import in_child, observing


@pytest.fixture(params=["fresh", "force", "two renames"])
def mode(request, monkeypatch):
    """The ways to publish; the last is what file systems without an exchange need."""
    if request.param == "two renames":
        monkeypatch.setattr(writer, "exchange", lambda _first, _second: False)
    return request.param


def prepare(folder: Path, mode: str) -> Path:
    output = folder / "bundle"
    if mode != "fresh":
        write(output, b"old")
    return output


def record_steps(folder: Path, mode: str) -> list[str]:
    folder.mkdir()
    output, steps = prepare(folder, mode), []
    with observing(steps.append):
        write(output, force=mode != "fresh")
    return steps


def complete_states(folder: Path) -> dict[str, object]:
    folder.mkdir()
    return {
        "absent": None,
        "old": snapshot(write(folder / "old", b"old")),
        "new": snapshot(write(folder / "new", b"new")),
    }


def state_of(output: Path, states: dict[str, object]) -> str:
    found = snapshot(output)
    return next((name for name, state in states.items() if state == found), "PARTIAL")


def test_a_bundle_is_written_and_reads_back(tmp_path):
    output = write(tmp_path / "bundle")
    bundle = read_bundle(output)
    assert [record.path for record in bundle.manifest.files] == [
        "model_index.json",
        "unet/model.onnx",
        "unet/model.onnx_data",
    ]
    assert bundle.file("unet/model.onnx").read_bytes() == b"graph new"
    assert hidden(tmp_path) == []


def test_the_bytes_do_not_depend_on_place_or_order(memory_path):
    (memory_path / "deep" / "er").mkdir(parents=True)
    first = write(memory_path / "a")
    with BundleWriter(memory_path / "deep" / "er" / "b") as bundle_writer:
        root = bundle_writer.staging
        (root / "model_index.json").write_bytes(b"{}\n")
        (root / "unet").mkdir(mode=0o700)
        (root / "unet" / "model.onnx_data").write_bytes(b"new" * 1000)
        (root / "unet" / "model.onnx").write_bytes(b"graph new")
        (root / "unet" / "model.onnx").chmod(0o600)
        bundle_writer.commit(dict(reversed(MANIFEST.items())))
    assert snapshot(first) == snapshot(memory_path / "deep" / "er" / "b")


@pytest.mark.parametrize(
    ("umask", "file", "folder"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700)]
)
def test_modes_follow_the_umask(memory_path, umask, file, folder):
    before = os.umask(umask)
    try:
        with BundleWriter(memory_path / "bundle") as bundle_writer:
            assert bundle_writer.staging.stat().st_mode & 0o777 == 0o700
            fill(bundle_writer.staging)
            bundle_writer.commit(MANIFEST)
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    modes = {
        path.is_dir(): path.stat().st_mode & 0o777 for path in (memory_path / "bundle").rglob("*")
    }
    assert modes == {False: file, True: folder}
    assert (memory_path / "bundle").stat().st_mode & 0o777 == folder


def test_order_of_operations(memory_path, mode):
    steps = record_steps(memory_path / "x", mode)
    names = [name.removeprefix("before ") for name in steps if name.startswith("before ")]
    publish = {
        "fresh": ["rename"],
        "force": ["rename", "exchange"],
        "two renames": ["rename", "exchange", "rename aside", "rename again"],
    }
    assert names == [
        "reclaim",
        "create staging",
        "list",
        "seal model_index.json",
        "seal unet/model.onnx",
        "seal unet/model.onnx_data",
        "create manifest",
        "write manifest",
        "sync manifest",
        "sync folder unet",
        "sync folder .",
        *publish[mode],
        "sync parent",
        "remove",
    ]
    assert len(steps) == 2 * len(names)


def test_everything_is_synced_before_the_rename(tmp_path, monkeypatch):
    log: list[str] = []
    real_sync, real_rename = os.fsync, operations.rename_new
    monkeypatch.setattr(
        os,
        "fsync",
        lambda fd: (log.append(str(Path(f"/proc/self/fd/{fd}").readlink())), real_sync(fd))[1],
    )
    monkeypatch.setattr(
        operations, "rename_new", lambda a, b: (log.append("rename"), real_rename(a, b))[1]
    )
    write(tmp_path / "bundle")
    staging = log[0].removesuffix("/model_index.json")
    assert log == [
        f"{staging}/model_index.json",
        f"{staging}/unet/model.onnx",
        f"{staging}/unet/model.onnx_data",
        f"{staging}/qdx.json",
        f"{staging}/unet",
        staging,
        "rename",
        str(tmp_path),
    ]


def test_kill_at_every_step(memory_path, mode):
    steps = record_steps(memory_path / "x", mode)
    states = complete_states(memory_path / "states")
    seen = set()
    for number in range(len(steps)):
        folder = memory_path / str(number)
        folder.mkdir()
        output, count = prepare(folder, mode), iter(range(len(steps)))

        def kill(_name, number=number, count=count):
            if next(count) == number:
                os.kill(os.getpid(), signal.SIGKILL)

        def body(output=output, kill=kill):
            operations._observer = kill
            write(output, force=mode != "fresh")

        assert os.WTERMSIG(in_child(body)) == signal.SIGKILL
        state = state_of(output, states)
        # Without an exchange the output is absent for a moment, and the next run puts it back.
        allowed = {"fresh": {"absent", "new"}, "force": {"old", "new"}}
        assert state in allowed.get(mode, {"absent", "old", "new"}), (steps[number], state)
        seen.add(state)
        if state == "absent" and mode == "two renames":
            with pytest.raises(UsageError):
                write(output)
            assert state_of(output, states) == "old"
        write(output, force=state != "absent" or mode != "fresh")
        assert state_of(output, states) == "new"
        assert hidden(folder) == [], steps[number]
    assert len(seen) >= 2


def interrupt_at(number: int, seen: list[str]):
    """Raises where Python looks for signals: on entering a function of the writer, or after any other call of it."""

    def profile(frame, event, called):
        code = frame.f_code
        if (
            event not in {"call", "c_return"}
            or Path(code.co_filename).parent != Path(writer.__file__).parent
            or code.co_flags & inspect.CO_GENERATOR  # while one is closed, Python drops it
        ):
            return
        seen.append(f"{code.co_name}: {event} {called}")
        if len(seen) > number:
            sys.setprofile(None)
            raise KeyboardInterrupt

    return profile


def test_an_interrupt_while_it_opens_leaves_nothing(memory_path):
    for number in itertools.count():
        seen, opening = [], BundleWriter(memory_path / "bundle")
        sys.setprofile(interrupt_at(number, seen))
        try:
            opening.__enter__()
        except KeyboardInterrupt:
            assert hidden(memory_path) == [], seen[-1]
        finally:
            sys.setprofile(None)
        opening.__exit__(None, None, None)
        if len(seen) <= number:
            break
    assert any(each.startswith("create_staging") for each in seen)


def test_an_interrupt_while_it_closes_closes_no_file_of_others(memory_path, monkeypatch):
    close, closed = os.close, []
    opened = BundleWriter(memory_path / "bundle").__enter__()
    lock = opened._lock

    def interrupted(descriptor):
        closed.append(descriptor)
        close(descriptor)
        if descriptor == lock:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "close", interrupted)
    with pytest.raises(KeyboardInterrupt):
        opened._close()
    opened._close()
    assert closed.count(lock) == 1
    assert hidden(memory_path) == []


@pytest.mark.slow
def test_kill_at_random_times(memory_path, mode):
    states = complete_states(memory_path / "states")
    output = prepare(memory_path, mode)
    chance, seen = random.Random(0), set()
    for _ in range(300):
        child = os.fork()
        if child == 0:
            while True:
                with contextlib.suppress(QdxError):
                    write(output, chance.choice([b"old", b"new"]), force=mode != "fresh")
        time.sleep(chance.uniform(0.0005, 0.02))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        seen.add(state_of(output, states))
        if mode == "fresh" and output.exists():
            shutil.rmtree(output)
    assert "PARTIAL" not in seen
    write(output, force=True)
    assert hidden(memory_path) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EACCES, errno.EMFILE, errno.EINTR])
def test_a_fault_at_every_step(memory_path, mode, code):
    steps = record_steps(memory_path / "x", mode)
    states = complete_states(memory_path / "states")
    for number, name in enumerate(steps):
        folder = memory_path / str(number)
        folder.mkdir()
        output, count = prepare(folder, mode), iter(range(10_000))

        def fail(_name, number=number, count=count):
            if next(count) == number:
                raise OSError(code, os.strerror(code))

        with observing(fail):
            if name.endswith(" remove"):  # the bundle is complete: tidying up is no reason to fail
                write(output, force=mode != "fresh")
                expected = "new"
            else:
                with pytest.raises(StorageError, match=os.strerror(code)) as caught:
                    write(output, force=mode != "fresh")
                assert caught.value.hint
                assert str(folder) in caught.value.message
                expected = "absent" if mode == "fresh" else "old"
        assert state_of(output, states) == expected, name
        assert hidden(folder) == [], name


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, SystemExit])
def test_an_interrupt_at_every_step(memory_path, mode, error):
    steps = record_steps(memory_path / "x", mode)
    states = complete_states(memory_path / "states")
    for number, name in enumerate(steps):
        folder = memory_path / str(number)
        folder.mkdir()
        output, count = prepare(folder, mode), iter(range(10_000))

        def interrupt(_name, number=number, count=count):
            if next(count) == number:
                raise error

        with observing(interrupt), pytest.raises(error):
            write(output, force=mode != "fresh")
        tidying = name.endswith(" remove")
        expected = "new" if tidying else "absent" if mode == "fresh" else "old"
        assert state_of(output, states) == expected, name
        write(output, force=True)
        assert hidden(folder) == [], name


def test_the_last_copy_survives_when_it_cannot_be_put_back(memory_path, monkeypatch):
    states = complete_states(memory_path / "states")
    output = write(memory_path / "bundle", b"old")

    def fail(name):
        if name == "before rename again":
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def rename_but_not_back(source, target):
        if source.suffix == ".old":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rename_new(source, target)

    with monkeypatch.context() as patch, observing(fail):
        patch.setattr(writer, "exchange", lambda _first, _second: False)
        patch.setattr(writer, "rename_new", rename_but_not_back)
        with pytest.raises(StorageError):
            write(output, force=True)
    assert state_of(output, states) == "absent"
    with pytest.raises(UsageError, match="exists"):
        write(output)
    assert state_of(output, states) == "old"
    assert hidden(memory_path) == []


@pytest.mark.parametrize("limit", [0, 1, 100, 500, 1000, 2000, 2999, 3000, 3500, 10_000])
def test_a_limit_on_file_sizes(memory_path, limit, mode):
    states = complete_states(memory_path / "states")
    output = prepare(memory_path, mode)
    manifest_size = (memory_path / "states" / "new" / "qdx.json").stat().st_size

    def body():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        write(output, force=mode != "fresh")

    status = os.waitstatus_to_exitcode(in_child(body))
    fits = limit >= max(3000, manifest_size)
    assert status == (0 if fits else 3)
    before = "absent" if mode == "fresh" else "old"
    assert state_of(output, states) == ("new" if fits else before)
    assert hidden(memory_path) == []


def run_together(count: int, body) -> list[int]:
    """Starts children that wait for each other, and returns their exit statuses."""
    ready, go = os.pipe()
    children = []
    for number in range(count):
        child = os.fork()
        if child == 0:
            os.close(go)
            os.read(ready, 1)  # returns when the parent closes the other end
            try:
                body(number)
            except UsageError:
                os._exit(2)
            except BaseException:  # noqa: BLE001
                os._exit(4)
            os._exit(0)
        children.append(child)
    os.close(ready)
    os.close(go)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def test_of_many_writers_one_wins(memory_path):
    for turn in range(3):
        output = memory_path / f"bundle{turn}"
        codes = run_together(8, lambda n, output=output: write(output, b"%d" % n))
        assert sorted(codes) == [0] + [2] * 7
        winner = codes.index(0)
        assert (output / "unet" / "model.onnx").read_bytes() == b"graph %d" % winner
        read_bundle(output)
        assert hidden(memory_path) == []


def test_of_many_replacing_writers_all_win_in_turn(memory_path):
    output = write(memory_path / "bundle", b"old")
    codes = run_together(8, lambda n: write(output, b"%d" % n, force=True))
    assert codes == [0] * 8
    read_bundle(output)
    write(output, force=True)
    assert hidden(memory_path) == []


def test_a_bundle_that_is_replaced_while_it_is_read_is_read_again(tmp_path, monkeypatch):
    output, other = write(tmp_path / "bundle", b"old"), write(tmp_path / "other", b"other")
    read = writer.read_listing

    def half_read(path):
        monkeypatch.setattr(writer, "read_listing", read)
        path.rename(tmp_path / "aside")
        other.rename(path)
        raise InvalidBundle("a file of the old bundle is gone")

    monkeypatch.setattr(writer, "read_listing", half_read)
    write(output, b"new", force=True)
    assert (output / "unet" / "model.onnx").read_bytes() == b"graph new"


def test_a_living_writer_is_left_alone(memory_path):
    output = memory_path / "bundle"
    with BundleWriter(output) as slow:
        fill(slow.staging)
        write(output, b"fast")
        assert (slow.staging / "unet" / "model.onnx").exists()
        with pytest.raises(UsageError, match="exists"):
            slow.commit(MANIFEST)
    assert (output / "unet" / "model.onnx").read_bytes() == b"graph fast"
    assert hidden(memory_path) == []


def test_only_own_rubbish_is_reclaimed(memory_path):
    kept = [".bundle.qdx-1-x", ".bundle2.qdx-1-0", ".bundle.qdx-1-0.new", ".bundle"]
    for name in [*kept, ".bundle.qdx-1-0"]:
        (memory_path / name).mkdir()
        (memory_path / name / "file").write_bytes(b"")
    (memory_path / "elsewhere").mkdir()
    (memory_path / ".bundle.qdx-3-0").symlink_to(memory_path / "elsewhere")
    (memory_path / ".bundle.qdx-4-0").write_bytes(b"a file")
    write(memory_path / "bundle", b"old")
    write(memory_path / "bundle", force=True)
    assert hidden(memory_path) == sorted([*kept, ".bundle.qdx-3-0", ".bundle.qdx-4-0"])


def test_leaving_without_commit_writes_nothing(tmp_path):
    with BundleWriter(tmp_path / "bundle") as bundle_writer:
        fill(bundle_writer.staging)
    assert list(tmp_path.iterdir()) == []


def test_an_os_error_in_the_body_is_a_storage_error(tmp_path):
    def body():
        with BundleWriter(tmp_path / "bundle") as bundle_writer:
            path = bundle_writer.staging / "x"
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with pytest.raises(StorageError, match="No space left") as caught:
        body()
    assert "free some space" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_other_errors_pass_unchanged(memory_path):
    with pytest.raises(ZeroDivisionError), BundleWriter(memory_path / "bundle"):
        raise ZeroDivisionError
    assert list(memory_path.iterdir()) == []


# Refused before any work


def test_an_existing_output_is_refused(tmp_path):
    output = write(tmp_path / "bundle", b"old")
    before = snapshot(tmp_path)
    with pytest.raises(UsageError, match="exists") as caught:
        BundleWriter.check(output)
    assert "--force" in caught.value.hint
    with pytest.raises(UsageError):
        BundleWriter(output)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("kind", ["file", "link", "dangling link", "photos"])
def test_force_replaces_only_bundles(memory_path, kind):
    output = memory_path / "out"
    match kind:
        case "file":
            output.write_bytes(b"precious")
        case "link":
            output.symlink_to(write(memory_path / "bundle"))
        case "dangling link":
            output.symlink_to(memory_path / "nothing")
        case "photos":
            output.mkdir()
            (output / "cat.jpg").write_bytes(b"precious")
    with pytest.raises(UsageError):
        BundleWriter.check(output, force=True)
    assert os.path.lexists(output)


FOREIGN = {
    "an empty manifest": lambda o: (o / "qdx.json").write_text("{}"),
    "no JSON": lambda o: (o / "qdx.json").write_text("notes"),
    "another file": lambda o: (o / "cat.jpg").write_bytes(b"precious"),
    "another folder": lambda o: (o / "photos").mkdir(),
    "a file deeper": lambda o: (o / "unet" / "cat.jpg").write_bytes(b"precious"),
    "a hidden file": lambda o: (o / ".git").write_bytes(b"precious"),
    "a file of another size": lambda o: (o / "model_index.json").write_bytes(b"precious"),
    "a missing file": lambda o: (o / "unet" / "model.onnx").unlink(),
    "a link": lambda o: (o / "link").symlink_to("/etc/passwd"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_force_keeps_a_folder_that_its_manifest_does_not_list_in_full(memory_path, kind):
    output = write(memory_path / "out")
    FOREIGN[kind](output)
    before = snapshot(output)
    with pytest.raises(UsageError, match="--force replaces complete bundles only") as caught:
        write(output, b"other", force=True)
    assert "remove the folder yourself" in caught.value.hint
    assert snapshot(output) == before


def test_force_replaces_an_empty_folder_and_an_altered_bundle(tmp_path):
    (tmp_path / "empty").mkdir()
    read_bundle(write(tmp_path / "empty", force=True))
    output = write(tmp_path / "altered")
    (output / "unet" / "model.onnx").write_bytes(b"graph nex")
    read_bundle(write(output, force=True))


def test_a_folder_that_fills_up_meanwhile_is_not_replaced(tmp_path):
    output = tmp_path / "out"
    with BundleWriter(output, force=True) as bundle_writer:
        fill(bundle_writer.staging)
        output.mkdir()
        (output / "cat.jpg").write_bytes(b"precious")
        with pytest.raises(UsageError, match="expected a bundle"):
            bundle_writer.commit(MANIFEST)
    assert (output / "cat.jpg").read_bytes() == b"precious"
    assert hidden(tmp_path) == []


def test_an_empty_folder_that_appears_meanwhile_is_not_replaced(tmp_path):
    with BundleWriter(tmp_path / "out") as bundle_writer:
        fill(bundle_writer.staging)
        (tmp_path / "out").mkdir()
        with pytest.raises(UsageError):
            bundle_writer.commit(MANIFEST)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_missing_parent_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match="not a folder") as caught:
        BundleWriter.check(tmp_path / "a" / "b")
    assert "mkdir -p" in caught.value.hint


def test_an_output_below_a_file_is_no_folder_to_make(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError) as caught:
        BundleWriter.check(tmp_path / "file" / "sub" / "out")
    assert caught.value.hint == f"`{tmp_path}/file` is in the way; choose another output"


def test_a_parent_that_is_a_file_is_a_storage_error(tmp_path):
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(StorageError):
        BundleWriter.check(tmp_path / "a" / "b")


def test_an_unwritable_parent_is_a_storage_error(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    with pytest.raises(StorageError, match="not writable"):
        BundleWriter.check(tmp_path / "b")


def test_a_parent_that_refuses_is_a_storage_error():
    with pytest.raises(StorageError), BundleWriter("/proc/qdx-bundle"):
        pass


@pytest.mark.parametrize("output", ["", "/", "a\0b"])
def test_outputs_that_are_no_names(output):
    with pytest.raises(UsageError):
        BundleWriter.check(output)


def test_a_name_that_is_too_long(tmp_path):
    with (
        pytest.raises(StorageError, match="create staging") as caught,
        BundleWriter(tmp_path / ("x" * 250)),
    ):
        pass
    assert "shorter" in caught.value.hint


def test_a_relative_output(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert BundleWriter("bundle").output == tmp_path / "bundle"
    read_bundle(write(Path("bundle")))


# Our own defects


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe", "empty folder", "name", "manifest"])
def test_wrong_files_in_the_staging_folder(memory_path, kind):
    with BundleWriter(memory_path / "bundle") as bundle_writer:
        fill(bundle_writer.staging)
        path = bundle_writer.staging / "extra"
        match kind:
            case "link":
                path.symlink_to("/etc/passwd")
            case "hard link":
                path.hardlink_to(bundle_writer.staging / "model_index.json")
            case "pipe":
                os.mkfifo(path)
            case "empty folder":
                path.mkdir()
            case "name":
                (bundle_writer.staging / "a b").write_bytes(b"")
            case "manifest":
                (bundle_writer.staging / "qdx.json").write_bytes(b"{}")
        with pytest.raises(InternalError):
            bundle_writer.commit(MANIFEST)
    assert list(memory_path.iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [{"files": []}, {"shapes": "some"}, {"qdx": 1}, {"more": 1}, {"call": {"a": float("nan")}}],
)
def test_wrong_manifests(memory_path, change):
    with BundleWriter(memory_path / "bundle") as bundle_writer:
        fill(bundle_writer.staging)
        with pytest.raises(InternalError):
            bundle_writer.commit({**MANIFEST, **change})
    assert list(memory_path.iterdir()) == []


def test_misuse(memory_path):
    bundle_writer = BundleWriter(memory_path / "bundle")
    with pytest.raises(InternalError):
        _ = bundle_writer.staging
    with bundle_writer:
        fill(bundle_writer.staging)
        bundle_writer.commit(MANIFEST)
        with pytest.raises(InternalError):
            bundle_writer.commit(MANIFEST)
    read_bundle(memory_path / "bundle")
