"""Staging folders: hidden, beside the output, locked while their writer lives.

A folder `.NAME.qdx-PID-N` belongs to the process that holds a lock on it. The lock goes with the
process, however it ends, so an unlocked folder is rubbish of a killed run. `.NAME.qdx-PID-N.old`
is the previous bundle during a replacement on file systems without an atomic exchange; when the
output is missing, it is put back.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from qdx.bundle.rename import rename_new

__all__ = [
    "create_staging",
    "discard_locked",
    "lock_folder",
    "reclaim_all",
    "reclaim_stale",
    "remove_tree",
]

_OWN_NAME: Final = re.compile(r"\..+\.qdx-[0-9]+-[0-9]+")


def create_staging(output: Path) -> tuple[Path, int]:
    """Makes an empty staging folder of mode 0700 and locks it.

    Returns:
        Its path, and the descriptor that holds the lock.

    Raises:
        OSError: If it cannot be made.
    """
    for path in _hidden_names(output):
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            continue
        # Between the two calls another process may take the folder for rubbish; then try the next.
        if (lock := lock_folder(path)) is not None:
            return path, lock
    raise AssertionError  # the names do not end


def lock_folder(path: Path, *, shared: bool = False) -> int | None:
    """Locks a folder; returns None if another process has it, or if it is gone or replaced.

    Args:
        path: The folder; a link is none.
        shared: Whether others may hold a shared lock as well.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
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


def reclaim_all(folder: Path) -> None:
    """Removes what killed runs left in a folder, whatever output it was for.

    Best effort, as `reclaim_stale`; previous bundles (`.old`) are left alone.
    """
    with contextlib.suppress(OSError):
        for entry in sorted(folder.iterdir()):
            if _OWN_NAME.fullmatch(entry.name) is not None and _is_own_folder(entry):
                with contextlib.suppress(OSError):
                    _reclaim(entry, entry, is_old=False)


def discard_locked(path: Path) -> None:
    """Removes a folder that the caller has locked: its name is gone at once, its files then.

    Raises:
        OSError: If it cannot be renamed; it is as it was.
    """
    for hidden in _hidden_names(path):
        try:
            rename_new(path, hidden)
        except FileExistsError:
            continue
        remove_tree(hidden)
        return


def remove_tree(path: Path) -> None:
    """Removes a folder as far as possible; what stays is reclaimed by a later run."""
    shutil.rmtree(path, ignore_errors=True)


def _hidden_names(output: Path) -> Iterator[Path]:
    """Names of this process beside an output."""
    for number in itertools.count():
        yield output.parent / f".{output.name}.qdx-{os.getpid()}-{number}"


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
