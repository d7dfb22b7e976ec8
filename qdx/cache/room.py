"""Room for one more entry: what all take together, and what has to go."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from qdx.cache.contents import allowed_bytes, evict, list_entries

__all__ = ["Room"]

# Other processes add as well: after so many own entries, or so much of the limit, the disk is asked.
_ADDED_BEFORE_SCAN: Final = 100
_SHARE_BEFORE_SCAN: Final = 0.05


class Room:
    """How full a store is, without looking at all of it each time.

    Args:
        root: The store's.
        limit_bytes: Size of all entries together.
    """

    def __init__(self, root: Path, limit_bytes: int) -> None:
        self._root = root
        self._limit_bytes = limit_bytes
        self._used_bytes: int | None = None  # None: the disk is to be asked
        self._added = self._added_bytes = 0

    def forget(self) -> None:
        """Asks the disk again before the next entry."""
        self._used_bytes = None

    def take(self, size_bytes: int) -> None:
        """Counts an entry that was added."""
        self._added += 1
        self._added_bytes += size_bytes
        self._used_bytes = self._used() + size_bytes

    def make(self, size_bytes: int) -> str | None:
        """Evicts until an entry of that size fits; returns why it does not, or None."""
        if (
            self._added >= _ADDED_BEFORE_SCAN
            or self._added_bytes >= self._limit_bytes * _SHARE_BEFORE_SCAN
        ):
            self.forget()
        used = self._used()
        allowed = allowed_bytes(self._root, self._limit_bytes, used)
        excess = used + size_bytes - allowed
        if excess <= 0:
            return None
        if size_bytes <= allowed:
            freed = evict(self._root, excess)
            self._used_bytes = used = used - freed
            if freed >= excess:
                return None
        return f"{size_bytes} bytes: {allowed} bytes are allowed, {used} are in use"

    def _used(self) -> int:
        if self._used_bytes is None:
            self._used_bytes = sum(entry.size_bytes for entry in list_entries(self._root))
            self._added = self._added_bytes = 0
        return self._used_bytes
