"""Other processes that use a store at the same time, and disks that are small or read-only."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.layers import ROOT

KEY = "0123456789abcdef" * 4
OTHER_KEY = "fedcba9876543210" * 4

_HEAD = """
import sys, time
from pathlib import Path
from qdx.cache.store import Store
root, ready = Path(sys.argv[1]), Path(sys.argv[2])
KEY = "0123456789abcdef" * 4
store = Store(root)
"""


def fill(folder: Path, text: str = "one") -> None:
    """Two files in an entry, one of them deeper."""
    (folder / "a.bin").write_bytes(text.encode() * 100)
    (folder / "deep").mkdir()
    (folder / "deep" / "b.bin").write_bytes(b"two" * 100)


def add(store, kind: str = "numbers", key: str = KEY, text: str = "one") -> None:
    with store.adding(kind, key) as folder:
        fill(folder, text)


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def hidden(root: Path) -> list[str]:
    return [path.name for path in root.rglob(".*")]


def run(body: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs Python that has `store`, `root` and `KEY` in a process of its own, to its end."""
    return subprocess.run(
        [sys.executable, "-c", _HEAD + body, *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=60, cwd=ROOT,
    )  # fmt: skip


@contextlib.contextmanager
def running(body: str, root: Path, ready: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The same at the same time: from when it has made the file `ready`, until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HEAD + body, str(root), str(ready)], cwd=ROOT
    )
    try:
        deadline = time.monotonic() + 60
        while not ready.exists():
            assert process.poll() is None, "it ended early"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield process
    finally:
        process.kill()
        process.wait()


def kill(process: subprocess.Popen[bytes]) -> None:
    """Ends a process so that it can do nothing about it."""
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def on_disk(body: str, *, options: str) -> subprocess.CompletedProcess[str]:
    """Runs Python with `root` on a small disk of its own, which nobody else sees.

    Args:
        body: As for `run`. `os.environ["DISK"]` is where the disk is.
        options: Of the mount, such as `size=64k`.
    """
    script = f'mount -t tmpfs -o {options} none "$DISK" && exec "$0" -c "$1" "$DISK/cache/v1" -'
    with contextlib.ExitStack() as stack:
        from tempfile import TemporaryDirectory

        disk = stack.enter_context(TemporaryDirectory())
        done = subprocess.run(
            ["unshare", "-rm", "sh", "-c", script, sys.executable, _HEAD + body],
            capture_output=True, text=True, check=False, timeout=60, cwd=ROOT,
            env={**os.environ, "DISK": disk},
        )  # fmt: skip
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip("no disks of one's own here")
    return done
