"""How much memory there is, and how much of it processes hold."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from qdx.exporter.errors import InsufficientMemory
from qdx.exporter.text.words import memory

__all__ = ["anonymous_bytes", "available_memory_bytes", "check_memory", "give_back"]

_ROOT: Final = Path("/")
_LINUX: Final = sys.platform == "linux"
_V2: Final = ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file")
_V1: Final = (
    "sys/fs/cgroup/memory",
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    "total_inactive_file",
)
"""Of each version of control groups: where they are mounted, the limit, what is used, and what of that can be dropped."""


def check_memory(needed_bytes: int, available_bytes: int, what: str, way_out: str) -> None:
    """Refuses work that memory will not do for, before it begins.

    Args:
        needed_bytes: What it takes beside what is held already.
        available_bytes: What there is, as `available_memory_bytes` tells.
        what: The work, as the subject of a sentence, such as `calibrating with 4 workers`.
        way_out: What to do, such as ``give fewer `--workers` ``.

    Raises:
        InsufficientMemory: More is needed than there is.
    """
    if needed_bytes > available_bytes:
        raise InsufficientMemory(
            f"{what} needs about {memory(needed_bytes)} of memory, {memory(available_bytes)} are available",
            hint=way_out,
        )


def available_memory_bytes(root: Path = _ROOT) -> int:
    """Returns how much more memory this process can take before the system or its container ends it.

    On Linux, what the kernel calls available, within the limits of every control group around the process;
    page cache that can be dropped counts as free. Elsewhere, what psutil says of the system.

    Args:
        root: Of the file system that holds `proc` and `sys`.
    """
    if not _LINUX:
        import psutil

        return int(psutil.virtual_memory().available)
    free = _fields(root / "proc/meminfo")["MemAvailable"]
    return max(0, min([free, *_control_groups(root)]))


def give_back() -> None:
    """Returns freed memory to the system, where glibc's heap keeps it: between large tasks of one process.

    See the manual page of malloc_trim. Does nothing with another C library.
    """
    if _LINUX:
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def anonymous_bytes(process: int | None = None) -> int:
    """Returns the memory that a process and its descendants hold for themselves.

    Files that are only mapped do not count. Pages that a child still shares with its parent count once.

    Args:
        process: Its number; None for this process.
    """
    root = os.getpid() if process is None else process
    if not _LINUX:
        import psutil

        try:
            own = psutil.Process(root)
            return sum(one.memory_full_info().uss for one in (own, *own.children(recursive=True)))
        except psutil.NoSuchProcess:
            return 0
    children = list(_descendants(root))
    if children:
        return sum(_shared_fairly(one) for one in (root, *children))
    try:
        return _fields(Path(f"/proc/{root}/status")).get("RssAnon", 0)
    except OSError:  # it ended meanwhile
        return 0


def _control_groups(root: Path) -> Iterator[int]:
    """What is left within each control group that has a limit, from the process's own to the outermost."""
    listed = root / "proc/self/cgroup"
    for line in listed.read_text().splitlines() if listed.exists() else []:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            layout = _V2
        elif "memory" in controllers.split(","):
            layout = _V1
        else:
            continue
        mount, limit_name, used_name, droppable = layout
        # A container may see its own group as the mount itself, by whatever path it is known outside.
        top = root / mount
        inner = top / path.lstrip("/")
        for group in (inner, *inner.parents):
            limit = _number(group / limit_name)
            used = _number(group / used_name)
            if limit is not None and used is not None:
                yield limit - used + _plain_fields(group / "memory.stat").get(droppable, 0)
            if group == top:
                break


def _number(file: Path) -> int | None:
    """The number in a file; None where there is no such file, or no limit (`max`)."""
    try:
        text = file.read_text().strip()
    except OSError:  # no such group in this mount, or not ours to read
        return None
    return int(text) if text.isdigit() else None


def _plain_fields(file: Path) -> dict[str, int]:
    """Lines of a name and a number."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return {}
    return {name: int(value) for name, value in (line.split() for line in lines)}


def _fields(file: Path) -> dict[str, int]:
    """Bytes by name from lines such as `RssAnon:      1234 kB`."""
    found = {}
    for line in file.read_text().splitlines():
        name, _, value = line.partition(":")
        if value.endswith(" kB"):
            found[name] = int(value[:-3]) * 1024
    return found


def _descendants(process: int) -> Iterator[int]:
    try:
        threads = list(Path(f"/proc/{process}/task").iterdir())
        children = [
            int(one) for thread in threads for one in (thread / "children").read_text().split()
        ]
    except OSError:  # it ended meanwhile
        return
    for child in children:
        yield child
        yield from _descendants(child)


def _shared_fairly(process: int) -> int:
    """Anonymous memory of a process, pages shared with others in equal parts."""
    try:
        return _fields(Path(f"/proc/{process}/smaps_rollup"))["Pss_Anon"]
    except OSError:  # it ended meanwhile
        return 0
