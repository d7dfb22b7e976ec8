"""The store: entries are found, added and evicted, by several processes at once.

A lock on an entry's folder tells who uses it, and goes with its process however that ends: shared
while a process reads a found entry, exclusive while one fills it or removes it. What a killed
process left half done lies under a hidden name, unlocked, and the next writer removes it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from qdx.bundle.operations import rename_if_free
from qdx.bundle.staging import (
    create_staging,
    discard_locked,
    lock_folder,
    reclaim_all,
    remove_tree,
)
from qdx.cache.contents import Cleared, clear, list_entries, work_of
from qdx.cache.entry import Entry, check_entry, folder_size_bytes, write_listing
from qdx.cache.keys import check_key, check_kind
from qdx.cache.place import DEFAULT_LIMIT_BYTES, check_root, user_limit_bytes, user_root
from qdx.cache.room import Room
from qdx.cache.work import leave_work, lock_work, remove_work
from qdx.exporter.errors import InvalidInput, QdxError, StorageError, quoted
from qdx.exporter.files import safe_child

__all__ = ["Store", "user_store"]

_NO_ROOM: Final = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}
)


class Store:
    """A folder of entries, each found by its kind and key.

    Args:
        root: The folder; it is made when something is added. Only this user may open it.
        limit_bytes: Size of all entries together; beyond it the longest unused ones go. It also
            never takes more than half of what would be free on the disk without it.
        tell: Called with each line that a user should see; `notes` has them all.

    Attributes:
        root: The folder, absolute.
        limit_bytes: As given.
        notes: What happened to the store that a user should know, in order: an entry was damaged,
            nothing can be kept.

    Raises:
        UsageError: If the root is a link or a file, or others may write there.
    """

    def __init__(
        self,
        root: Path,
        *,
        limit_bytes: int = DEFAULT_LIMIT_BYTES,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self.root = Path(os.path.abspath(root))  # noqa: PTH100 - no link is resolved
        self.limit_bytes = limit_bytes
        self.notes: list[str] = []
        self._tell = tell
        self._held: dict[Path, int] = {}
        self._working: dict[Path, int] = {}
        self._room = Room(self.root, limit_bytes)
        self._reclaimed: set[Path] = set()
        check_root(self.root)

    def find(self, kind: str, key: str) -> Path | None:
        """Returns the folder of a complete entry, every file of it checked; None if there is none.

        The entry stays while this process lives, or until `release`. A damaged one is removed,
        noted, and never returned.
        """
        path = self._path(kind, key)
        if path is None:
            return None
        lock = self._share(path)
        if lock is None:
            return None
        try:
            check_entry(path, kind, key)
        except InvalidInput as bad:
            self._drop(path, lock, bad.message)
            return None
        except StorageError as bad:
            self._note(f"cache: not used: {bad.message}")
            os.close(lock)
            return None
        except BaseException:
            os.close(lock)
            raise
        with contextlib.suppress(OSError):  # a cache on a read-only disk is as good to read
            os.utime(lock)
        self._held[path] = lock
        return path

    def release(self, kind: str, key: str) -> None:
        """Lets a found entry be evicted again: its files are read."""
        lock = self._held.pop(self._path_of(kind, key), None)
        if lock is not None:
            os.close(lock)

    @contextlib.contextmanager
    def adding(self, kind: str, key: str) -> Iterator[Path]:
        """Gives an empty folder that becomes the entry on leaving without an exception.

        Fill it and do nothing else there: where the disk has no room, or may not be written, the
        rest of the body is skipped, a note says so once, and the program goes on without the
        entry. If another process finished the same one meanwhile, that one stays.
        """
        with self._staged(kind, key) as (staging, is_kept):
            try:
                yield staging
            except (OSError, StorageError) as bad:
                if not _is_no_room(bad):
                    raise
                self._note_unkept(bad)
                return
            if is_kept:
                self._publish(staging, kind, key)

    @contextlib.contextmanager
    def working(self, kind: str, key: str) -> Iterator[Path]:
        """Gives a folder that keeps its files between processes, locked for this one.

        It outlives a kill, and is evicted like an entry when nobody works there; `remove_working`
        ends it.

        Raises:
            UsageError: If another process works there.
            StorageError: If it cannot be made.
        """
        path = work_of(self._path_of(kind, key))
        try:
            self._make_folder(path.parent)
            lock = lock_work(path)
        except OSError as bad:
            raise StorageError(
                f"{quoted(path)}: cannot keep work under way, {bad.strerror or bad}",
                hint="set QDX_CACHE to a folder on a disk with room, or give --no-cache",
            ) from bad
        self._working[path] = lock
        try:
            yield path
        finally:
            del self._working[path]
            leave_work(path, lock)

    def remove_working(self, kind: str, key: str) -> None:
        """Removes a folder of work under way, if there is one; inside `working` or outside.

        Raises:
            UsageError: If another process works there.
            StorageError: If it cannot be removed.
        """
        path = work_of(self._path_of(kind, key))
        remove_work(path, self._working.get(path))

    def entries(self) -> list[Entry]:
        """All entries and all work under way, those longest unused first."""
        return list_entries(self.root)

    @property
    def size_bytes(self) -> int:
        """The size of all that it holds."""
        return sum(entry.size_bytes for entry in self.entries())

    def clear(self, kind: str | None = None) -> Cleared:
        """Removes all entries and work under way, or those of one kind, but what a process uses."""
        if kind is not None:
            check_kind(kind)
        self._room.forget()
        return clear(self.root, kind)

    def _path_of(self, kind: str, key: str) -> Path:
        check_kind(kind)
        check_key(key)
        return self.root / kind / key

    def _path(self, kind: str, key: str) -> Path | None:
        """Where an entry is; None, with a note, where a link or another thing is in its place."""
        path = self._path_of(kind, key)
        try:
            check_root(self.root)
            safe_child(self.root, kind, error=InvalidInput)
            if _is_in_the_way(path):
                path.unlink(missing_ok=True)  # the link or file itself, not what it leads to
                self._note(f"cache: {quoted(path)} was removed: no folder, expected an entry")
                return None
        except (InvalidInput, StorageError) as bad:
            self._note(f"cache: not used: {bad.message}")
            return None
        except OSError as bad:
            self._note(f"cache: not used: {quoted(path)}: {bad.strerror or bad}")
            return None
        return path

    def _share(self, path: Path) -> int | None:
        """Locks an entry for reading, or takes the lock that is held on it."""
        held = self._held.pop(path, None)
        try:
            if held is not None:
                if os.path.lexists(path) and os.path.samestat(os.fstat(held), path.lstat()):
                    return held
                os.close(held)  # somebody replaced it in spite of the lock
            return lock_folder(path, shared=True)
        except OSError as bad:
            self._note(f"cache: not used: {quoted(path)}: {bad.strerror or bad}")
            return None

    def _drop(self, path: Path, lock: int, why: str) -> None:
        """Removes a damaged entry, unless another process reads it."""
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between the two locks another process may have put a new one there.
            if os.path.samestat(os.fstat(lock), path.lstat()):
                discard_locked(path)
        except OSError:
            self._note(f"cache: a damaged entry is not used: {why}")
        else:
            self._note(f"cache: a damaged entry was removed: {why}")
        finally:
            os.close(lock)
        self._room.forget()

    @contextlib.contextmanager
    def _staged(self, kind: str, key: str) -> Iterator[tuple[Path, bool]]:
        """An empty folder in the store and True, or one that leads nowhere if the store has no room."""
        try:
            staging, lock = self._create(self._path_of(kind, key))
        except (OSError, StorageError, InvalidInput) as bad:
            self._note_unkept(bad)
            with TemporaryDirectory(prefix="qdx-") as folder:
                yield Path(folder), False
            return
        try:
            yield staging, True
        finally:
            remove_tree(staging)
            os.close(lock)

    def _create(self, path: Path) -> tuple[Path, int]:
        self._make_folder(path.parent)
        if path.parent not in self._reclaimed:
            reclaim_all(path.parent)
            self._reclaimed.add(path.parent)
        return create_staging(path)

    def _make_folder(self, folder: Path) -> None:
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_root(self.root)
        safe_child(self.root, folder.name, error=InvalidInput)
        folder.mkdir(mode=0o700, exist_ok=True)

    def _publish(self, staging: Path, kind: str, key: str) -> None:
        """Completes an entry; a disk that refuses costs the entry, not the job."""
        try:
            write_listing(staging, kind, key)
            size_bytes = folder_size_bytes(staging)
            refused = self._room.make(size_bytes)
            if refused is not None:
                self._note(f"cache: an entry is not kept, {refused}")
            elif rename_if_free(staging, self._path_of(kind, key)):
                self._room.take(size_bytes)
        except (OSError, StorageError) as bad:
            self._note_unkept(bad)

    def _note_unkept(self, bad: Exception) -> None:
        cause = bad.__cause__ if isinstance(bad.__cause__, OSError) else bad
        why = bad.message if isinstance(bad, QdxError) else getattr(cause, "strerror", None) or bad
        self._note(f"cache: nothing is kept in {quoted(self.root)}: {why}")

    def _note(self, line: str) -> None:
        if line not in self.notes:
            self.notes.append(line)
            if self._tell is not None:
                self._tell(line)


def user_store(*, tell: Callable[[str], None] | None = None) -> Store:
    """Returns the user's store: in `$QDX_CACHE` or the platform's place, up to `$QDX_CACHE_LIMIT`.

    Raises:
        UsageError: If one of these says nothing that can be used.
    """
    return Store(user_root(), limit_bytes=user_limit_bytes(), tell=tell)


def _is_in_the_way(path: Path) -> bool:
    """Whether something that is no folder has the name of an entry.

    Looks once: between two looks another process may remove the entry, or put it there.
    """
    try:
        return not stat.S_ISDIR(path.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _is_no_room(bad: OSError | StorageError) -> bool:
    cause = bad if isinstance(bad, OSError) else bad.__cause__
    return isinstance(cause, OSError) and cause.errno in _NO_ROOM
