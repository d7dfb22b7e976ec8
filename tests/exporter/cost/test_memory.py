"""How much memory there is, and what processes hold of it."""

from __future__ import annotations

import os
import platform
import sys

import pytest

from qdx.exporter.cost.memory import (
    anonymous_bytes,
    available_memory_bytes,
    check_memory,
    give_back,
)
from qdx.exporter.errors import InsufficientMemory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads the files of Linux")

GB = 10**9
MIB = 2**20
FREE = 8 * 2**30


def machine(root, groups, files):
    """A file system with 8 GiB available, a process in some groups, and the groups' files."""
    texts = {
        "proc/meminfo": f"MemTotal: 9999999 kB\nMemAvailable:  {FREE // 1024} kB\nHugePages_Free: 0\n",
        **files,
    }
    if groups is not None:
        texts["proc/self/cgroup"] = groups
    for name, text in texts.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(text))
    return root


def group(path, limit, used, droppable=0):
    """A group of version 2."""
    base = f"sys/fs/cgroup/{path}"
    return {
        f"{base}memory.max": f"{limit}\n",
        f"{base}memory.current": f"{used}\n",
        f"{base}memory.stat": f"anon 5\ninactive_file {droppable}\n",
    }


V1 = "sys/fs/cgroup/memory/"


@pytest.mark.parametrize(
    ("groups", "files", "available"),
    [
        (None, {}, FREE),
        ("0::/\n", {}, FREE),
        ("0::/\n", group("", 4 * GB, GB), 3 * GB),
        ("0::/\n", group("", 4 * GB, GB, GB // 2), 3.5 * GB),
        ("0::/\n", group("", "max", GB), FREE),
        ("0::/a/b\n", group("a/b/", "max", GB) | group("a/", 2 * GB, GB), GB),
        ("0::/a/b\n", group("a/b/", 3 * GB, GB) | group("a/", 9 * GB, GB), 2 * GB),
        ("0::/docker/1\n", group("", 4 * GB, GB), 3 * GB),
        ("0::/\n", group("", GB, 2 * GB), 0),
        ("0::/\n", group("", 99 * GB, GB), FREE),
        (
            "5:cpu:/x\n4:memory:/docker/1\n",
            {f"{V1}memory.limit_in_bytes": 4 * GB, f"{V1}memory.usage_in_bytes": 2 * GB,
             f"{V1}memory.stat": f"inactive_file 1\ntotal_inactive_file {GB}\n"},
            3 * GB,
        ),
        (
            "4:memory:/x\n",
            {f"{V1}memory.limit_in_bytes": 2**63 - 4096, f"{V1}memory.usage_in_bytes": GB},
            FREE,
        ),
    ],
    ids=["no groups", "no files", "limit", "page cache is free", "no limit", "of a parent", "of the child", "a container's own view",
         "beyond the limit", "more than there is", "version 1", "version 1 without limit"],
)  # fmt: skip
def test_available_memory_is_the_least_of_the_systems_and_the_groups(
    tmp_path, groups, files, available
):
    assert available_memory_bytes(machine(tmp_path, groups, files)) == available


def test_this_machine_has_memory():
    assert 10 * MIB < available_memory_bytes() < 2**50


def test_held_memory_grows_with_what_is_taken():
    before = anonymous_bytes()
    taken = bytearray(os.urandom(1)) * (64 * MIB)
    held = anonymous_bytes()
    del taken

    assert 60 * MIB < held - before < 80 * MIB


def test_memory_of_children_counts_and_what_they_share_counts_once():
    shared = bytearray(b"x") * (64 * MIB)
    before = anonymous_bytes()
    ready, tell = os.pipe()
    wait, go = os.pipe()
    child = os.fork()
    if child == 0:
        own = bytearray(b"y") * (32 * MIB)
        os.write(tell, b"." if own else b"")
        os.read(wait, 1)
        os._exit(0)
    os.read(ready, 1)
    with_child = anonymous_bytes()
    os.write(go, b".")
    os.waitpid(child, 0)

    assert len(shared)
    assert 28 * MIB < with_child - before < 60 * MIB


def test_enough_memory_passes_and_too_little_names_the_way_out():
    check_memory(GB, GB, "calibrating", "x")
    with pytest.raises(InsufficientMemory) as caught:
        check_memory(
            9_300_000_000,
            6_100_000_000,
            "calibrating with 4 workers",
            "give fewer `--workers`, or a smaller `calibration.call` in the plan",
        )

    assert caught.value.exit_code == 5
    assert str(caught.value) == (
        "calibrating with 4 workers needs about 9.3 GB of memory, 6.1 GB are available\n\n"
        "hint: give fewer `--workers`, or a smaller `calibration.call` in the plan"
    )


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc",
    reason="only glibc has malloc_trim; give_back does nothing elsewhere",
)
def test_what_the_heap_keeps_of_freed_memory_is_given_back() -> None:
    freed = [bytearray(100_000) for _ in range(2_000)]
    above = bytearray(100_000)
    del freed
    kept = anonymous_bytes()

    give_back()

    assert anonymous_bytes() < kept - 100_000_000
    assert above
