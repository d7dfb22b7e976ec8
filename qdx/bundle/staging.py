"""Staging folders: hidden, beside the output, locked while their writer lives.

A folder `.NAME.qdx-PID-N` belongs to the process that holds a lock on it. The lock goes with the
process, however it ends, so an unlocked folder is rubbish of a killed run. `.NAME.qdx-PID-N.old`
is the previous bundle during a replacement on file systems without an atomic exchange; when the
output is missing, it is put back.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import stat
from pathlib import Path

from qdx.bundle.rename import rename_new

__all__ = ["create_staging", "lock_folder", "reclaim_stale", "remove_tree"]


def create_staging(output: Path) -> tuple[Path, int]:
    """Makes an empty staging folder of mode 0700 and locks it.

    Returns:
        Its path, and the descriptor that holds the lock.

    Raises:
        OSError: If it cannot be made.
    """
    number = 0
    while True:
        path = output.parent / f".{output.name}.qdx-{os.getpid()}-{number}"
        number += 1
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            continue
        # Between the two calls another process may take the folder for rubbish; then try the next.
        if (lock := lock_folder(path)) is not None:
            return path, lock


def lock_folder(path: Path) -> int | None:
    """Locks a folder; returns None if another process has it, or if it is gone or replaced."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), path.lstat()):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def reclaim_stale(output: Path) -> None:
    """Removes what killed runs to the same output left, and puts a previous bundle back.

    Best effort: what cannot be removed stays, and does no harm.
    """
    pattern = re.compile(re.escape(f".{output.name}.qdx-") + r"[0-9]+-[0-9]+(\.old)?")
    with contextlib.suppress(OSError):
        for entry in sorted(output.parent.iterdir()):
            match = pattern.fullmatch(entry.name)
            if match is not None and _is_own_folder(entry):
                with contextlib.suppress(OSError):
                    _reclaim(entry, output, is_old=match.group(1) is not None)


def remove_tree(path: Path) -> None:
    """Removes a folder as far as possible; what stays is reclaimed by a later run."""
    shutil.rmtree(path, ignore_errors=True)


def _is_own_folder(path: Path) -> bool:
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()


def _reclaim(entry: Path, output: Path, *, is_old: bool) -> None:
    lock = lock_folder(entry)
    if lock is None:
        return
    try:
        if is_old and not os.path.lexists(output):
            rename_new(entry, output)
        else:
            remove_tree(entry)
    finally:
        os.close(lock)
