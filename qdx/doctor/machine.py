"""Memory, and where the cache is."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from qdx.exporter.cost.memory import available_memory_bytes
from qdx.exporter.errors import QdxError

__all__ = ["CachePlace", "Memory", "cache_place", "memory"]


@dataclass(frozen=True)
class Memory:
    """Main memory.

    Attributes:
        total_bytes: Of the machine.
        available_bytes: What a process can still take, within the limits of its container.
    """

    total_bytes: int
    available_bytes: int


@dataclass(frozen=True)
class CachePlace:
    """What is kept between runs.

    Attributes:
        root: The folder; None where there is none that can be used.
        size_bytes: What it takes.
        limit_bytes: What it may take.
        free_bytes: What its disk has left; None where that is not known.
        fault: Why it cannot be used; empty where it can.
        hint: What to do then.
    """

    root: Path | None
    size_bytes: int = 0
    limit_bytes: int = 0
    free_bytes: int | None = None
    fault: str = ""
    hint: str = ""


def memory() -> Memory:
    """Returns what memory there is."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Memory(total, available_memory_bytes())


def cache_place() -> CachePlace:
    """Returns where the cache is and what it takes."""
    from qdx.cache.store import user_store

    try:
        store = user_store()
        size_bytes = sum(entry.size_bytes for entry in store.entries())
    except QdxError as error:  # a setting, or rights: told here as what it is
        return CachePlace(None, fault=error.message, hint=error.hint or "")
    return CachePlace(store.root, size_bytes, store.limit_bytes, _free_bytes(store.root))


def _free_bytes(folder: Path) -> int | None:
    """What the disk of a folder has left, be the folder there already or not."""
    for place in (folder, *folder.parents):
        if place.is_dir():
            return shutil.disk_usage(place).free
    return None
