"""Scripts on a terminal of their own."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

__all__ = ["on_a_terminal"]


def on_a_terminal(code: str, *, status: int = 0, everything: bool = False, **environment: str):
    """What a terminal is sent by a script.

    Args:
        code: Python.
        status: With which it leaves.
        everything: Whether standard output is that terminal too, and not standard error alone.
        environment: Variables; those about colours are not taken over from here.
    """
    leader, follower = pty.openpty()
    clean = {k: v for k, v in os.environ.items() if k not in {"NO_COLOR", "FORCE_COLOR"}}
    values = {**clean, "TERM": "xterm-256color", "COLUMNS": "120", **environment}
    output = follower if everything else None
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=output, stderr=follower, env=values
    ) as process:
        os.close(follower)
        sent = b""
        while True:
            try:
                piece = os.read(leader, 4096)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            sent += piece
    os.close(leader)
    assert process.returncode == status, sent
    return sent.decode()
