"""What a command takes: wall time, processor time and anonymous memory, of itself and all that it starts."""

from __future__ import annotations

import resource
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass

from qdx.exporter.cost.memory import anonymous_bytes

__all__ = ["Taken", "run_measured"]

_POLL_S = 0.05
_POLL_SHARE = 0.02
"""Of a processor that looking may take: who maps gigabytes is looked at for milliseconds."""


@dataclass(frozen=True)
class Taken:
    """One command.

    Attributes:
        seconds: Wall time, the start of Python included.
        cpu_seconds: Of all processors together.
        peak_anonymous_bytes: The most that it and all that it started held for themselves at a time; pages that forked
            processes share count once.
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
        began = time.process_time()
        peak = max(peak, anonymous_bytes(process.pid))
        time.sleep(max(_POLL_S, (time.process_time() - began) / _POLL_SHARE))
    seconds = time.monotonic() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Taken(seconds, cpu, peak, process.returncode)
