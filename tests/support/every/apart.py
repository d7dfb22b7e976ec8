"""`measure` in a process of its own, with a limit on time and on memory."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import time
import warnings
from dataclasses import asdict
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final

from tests.support.every.measure import Result, measure

LIMIT_S: Final = 300.0
LIMIT_BYTES: Final = 8 << 30


def measure_apart(
    name: str, folder: Path, target: str, plan: str, *, limit_s: float = LIMIT_S, **options: Any
) -> Result:
    """What `measure` answers, or that the process crashed, took too long or took too much.

    On Linux the process is a fork: call `warm_up` first, and each class saves what libraries do at their first use.
    """
    began = time.monotonic()
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_tell, args=(sender, (name, folder, target, plan), options))
    process.start()
    sender.close()
    told, why = _heard(process, receiver, limit_s)
    process.join()
    if told is not None:
        return Result(**told)
    why = why or f"the process ended with status {process.exitcode}"
    return Result(
        name,
        runs_in_pytorch=True,
        outcome="fails",
        message=why,
        seconds=round(time.monotonic() - began, 1),
    )


def _heard(
    process: BaseProcess, receiver: Connection, limit_s: float
) -> tuple[dict[str, Any] | None, str]:
    """The result, or why there is none; a process that breaks a limit is killed."""
    end = time.monotonic() + limit_s
    while not receiver.poll(0.2):
        why = ""
        if time.monotonic() > end:
            why = f"it took more than {limit_s:.0f} s"
        elif _resident_bytes(process.pid) > LIMIT_BYTES:
            why = f"it took more than {LIMIT_BYTES >> 30} GiB of memory"
        if why:
            process.kill()
            return None, why
    with contextlib.suppress(EOFError):
        return receiver.recv(), ""
    return None, ""


def _resident_bytes(pid: int | None) -> int:
    try:
        pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    except (OSError, IndexError):
        return 0  # it ended, or this system has no such files: then time alone is limited
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _tell(
    sender: Connection, arguments: tuple[str, Path, str, str], options: dict[str, Any]
) -> None:
    warnings.simplefilter("ignore")
    with (
        Path(os.devnull).open("w", encoding="utf-8") as nowhere,
        contextlib.redirect_stderr(nowhere),
        contextlib.redirect_stdout(nowhere),
    ):
        found = measure(*arguments, **options)
    sender.send(asdict(found))
    sender.close()
    os._exit(0)  # what the libraries do on the way out takes a second
