"""Folders of work under way: locked by the process that works there, and kept for the next one."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from qdx.bundle.staging import discard_locked, lock_folder
from qdx.cache.contents import holder_of
from qdx.exporter.errors import InvalidInput, QdxError, StorageError, UsageError, quoted
from qdx.exporter.files import dump_json, load_json, safe_child

__all__ = ["leave_work", "lock_work", "remove_work"]


def lock_work(path: Path) -> int:
    """Makes and locks a folder of work, and says who has it.

    Args:
        path: The folder, in the folder of its kind, which exists.

    Returns:
        The descriptor that holds the lock.

    Raises:
        InvalidInput: A link is in its place.
        UsageError: Another process works there.
        OSError: It cannot be made.
    """
    safe_child(path.parent, path.name, error=InvalidInput)
    lock = None
    while lock is None:
        _make_folder(path)
        lock = lock_folder(path)
        # Between the two calls another process may remove the folder, which it found unused; then try again.
        if lock is None and os.path.lexists(path):
            raise _taken(path)
    holder = holder_of(path)
    with contextlib.suppress(OSError):  # it only makes a message better
        holder.unlink(missing_ok=True)  # never written through a link
        holder.write_bytes(dump_json({"pid": os.getpid()}))
    return lock


def leave_work(path: Path, lock: int) -> None:
    """Frees the lock; the files stay, as used now."""
    with contextlib.suppress(OSError):
        os.utime(lock)
        holder_of(path).unlink(missing_ok=True)
    os.close(lock)


def remove_work(path: Path, own_lock: int | None) -> None:
    """Removes a folder of work, if there is one.

    Args:
        path: The folder.
        own_lock: The lock on it that this process has already; it stays open.

    Raises:
        UsageError: Another process works there.
        StorageError: It cannot be removed.
    """
    lock = lock_folder(path) if own_lock is None else own_lock
    if lock is None:
        if not os.path.lexists(path):
            return
        raise _taken(path)
    try:
        discard_locked(path)
    except OSError as bad:
        raise StorageError(f"{quoted(path)}: cannot be removed, {bad.strerror}") from bad
    finally:
        if own_lock is None:
            os.close(lock)


def _make_folder(path: Path) -> None:
    """Makes a folder unless it is there; `mkdir` itself fails where one goes while it looks."""
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        if path.is_file():
            raise


def _taken(path: Path) -> UsageError:
    try:
        pid = load_json(holder_of(path), error=InvalidInput).get("pid")
    except QdxError:
        pid = None
    who = f"process {pid}" if isinstance(pid, int) else "another process"
    return UsageError(
        f"{who} works on the same {path.parent.name} already",
        hint="wait until it has ended, or end it; or give --no-cache",
    )
