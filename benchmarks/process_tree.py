"""What a command takes: wall time, processor time and anonymous memory, of itself and all that it starts."""

from __future__ import annotations

import resource
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Taken", "anonymous_bytes", "run_measured"]

_POLL_S = 0.05


@dataclass(frozen=True)
class Taken:
    """One command.

    Attributes:
        seconds: Wall time, the start of Python included.
        cpu_seconds: Of all processors together.
        peak_anonymous_bytes: Largest sum of `RssAnon` over the process tree.
        status: Its exit status.
    """

    seconds: float
    cpu_seconds: float
    peak_anonymous_bytes: int
    status: int


def run_measured(command: Sequence[str], *, env: dict[str, str] | None = None) -> Taken:
    """Runs a command without its output, and measures it.

    Args:
        command: The program and its arguments.
        env: Its environment; None for that of this process.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=env)  # noqa: S603  # our own command
    peak = 0
    while process.poll() is None:
        peak = max(peak, anonymous_bytes(process.pid))
        time.sleep(_POLL_S)
    seconds = time.monotonic() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Taken(seconds, cpu, peak, process.returncode)


def anonymous_bytes(root: int) -> int:
    """`RssAnon` of a process and all its descendants."""
    children: dict[int, list[int]] = {}
    anonymous: dict[int, int] = {}
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(
                line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line
            )
        except OSError:
            continue  # it ended meanwhile
        pid = int(fields["Pid"])
        children.setdefault(int(fields["PPid"]), []).append(pid)
        anonymous[pid] = int(fields.get("RssAnon", "0 kB").split()[0]) * 1024
    total, pending = 0, [root]
    while pending:
        pid = pending.pop()
        total += anonymous.get(pid, 0)
        pending += children.get(pid, [])
    return total
