"""All that a store holds, and removing of it what nobody uses."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qdx.bundle.staging import discard_locked, lock_folder, reclaim_all
from qdx.cache.entry import Entry, folder_size_bytes
from qdx.cache.keys import KEY, KIND

__all__ = ["Cleared", "allowed_bytes", "clear", "evict", "holder_of", "list_entries", "work_of"]

_WORK: Final = ".working"
# An entry this young may be one that its writer is about to read.
_YOUNG_S: Final = 60
# Of what would be free without the cache, it takes no more than this.
_SHARE_OF_FREE: Final = 0.5


@dataclass(frozen=True)
class Cleared:
    """What was removed.

    Attributes:
        entries: How many.
        size_bytes: How large they were together.
        in_use: How many stay because a process uses them.
    """

    entries: int
    size_bytes: int
    in_use: int


def work_of(entry: Path) -> Path:
    """The folder of work under way for an entry."""
    return entry.with_name(f"{entry.name}{_WORK}")


def holder_of(work: Path) -> Path:
    """The file that says which process works there."""
    return work.with_suffix(".holder")


def list_entries(root: Path) -> list[Entry]:
    """All entries and all work under way, those longest unused first; foreign files are none."""
    found = [
        entry
        for kind in _folders(root)
        if KIND.fullmatch(kind.name)
        for folder in _folders(Path(kind.path))
        if (entry := _entry(kind.name, folder)) is not None
    ]
    return sorted(found, key=lambda entry: (entry.used_at, entry.kind, entry.key))


def allowed_bytes(root: Path, limit_bytes: int, used_bytes: int) -> int:
    """The size that a store may have: its limit, or its share of the disk where that is less."""
    free = shutil.disk_usage(root).free
    return min(limit_bytes, int((free + used_bytes) * _SHARE_OF_FREE))


def evict(root: Path, excess_bytes: int) -> int:
    """Removes entries longest unused, complete ones first, until enough is free.

    Args:
        root: The store's.
        excess_bytes: How much is to go.

    Returns:
        How many bytes went: fewer where the rest is in use, or used within the last minute.
    """
    freed, now = 0, time.time()
    # Work under way is hours that nobody wants to spend again: it goes last.
    for entry in sorted(list_entries(root), key=lambda entry: entry.state == "working"):
        if freed >= excess_bytes:
            break
        if abs(now - entry.used_at) > _YOUNG_S and _discard(entry.path):
            freed += entry.size_bytes
    return freed


def clear(root: Path, kind: str | None) -> Cleared:
    """Removes all entries, or those of one kind, but what a process uses."""
    count = size_bytes = in_use = 0
    for folder in _folders(root):
        if KIND.fullmatch(folder.name) and kind in {None, folder.name}:
            reclaim_all(Path(folder.path))
    for entry in list_entries(root):
        if kind not in {None, entry.kind}:
            continue
        if _discard(entry.path):
            count, size_bytes = count + 1, size_bytes + entry.size_bytes
        else:
            in_use += 1
    return Cleared(count, size_bytes, in_use)


def _discard(folder: Path) -> bool:
    """Removes a folder unless a process uses it; returns whether it went."""
    lock = lock_folder(folder)
    if lock is None:
        return False
    try:
        # First: once the folder is gone, another process may work under its name.
        if folder.name.endswith(_WORK):
            holder_of(folder).unlink(missing_ok=True)
        discard_locked(folder)
    except OSError:  # a read-only disk, say: nothing is free then, and the caller sees that
        return False
    finally:
        os.close(lock)
    return True


def _entry(kind: str, folder: os.DirEntry[str]) -> Entry | None:
    key = folder.name.removesuffix(_WORK)
    if KEY.fullmatch(key) is None:
        return None
    path = Path(folder.path)
    try:
        used_at = folder.stat(follow_symlinks=False).st_mtime
        size_bytes = folder_size_bytes(path)
    except FileNotFoundError:  # removed meanwhile
        return None
    return Entry(
        kind, key, path, size_bytes, used_at, "complete" if key == folder.name else "working"
    )


def _folders(folder: Path) -> Iterator[os.DirEntry[str]]:
    """The folders in a folder, without links; none where it is missing."""
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as found:
        for entry in sorted(found, key=lambda entry: entry.name):
            if entry.is_dir(follow_symlinks=False):
                yield entry
