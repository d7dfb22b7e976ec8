"""Commands in a process of their own, started and waited for."""

from __future__ import annotations

import gc
import os


def start(body) -> int:
    """Starts a fork that runs a function and leaves with its result; returns its process id."""
    # What earlier tests left of sessions in cycles would hang a fork that frees it: their threads are not there.
    gc.collect()
    child = os.fork()
    if child == 0:
        status = 99
        gc.freeze()  # nor is what is still in use to be freed here
        try:
            status = body()
        except SystemExit as leaving:
            status = leaving.code
        finally:
            os._exit(status)
    return child


def wait(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
