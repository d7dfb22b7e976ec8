"""Exports in surroundings of their own, and what they must not tell of these."""

from __future__ import annotations

import getpass
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

from tests.support.layers import ROOT

EXPORT = """
import sys, torch
torch.set_num_threads(1)
from qdx.cli.main import run_command
from tests.support.layers import ROOT
sys.exit(run_command(["export", sys.argv[1], "--target", sys.argv[2], "-o", sys.argv[3], *sys.argv[4:]]))
"""


TRACES = (rb"site-packages", rb"stack_trace", rb"/home/", rb"/root/", rb"/tmp/", rb"/usr/",
          rb"20\d\d-\d\d-\d\d", rb"\d\d:\d\d:\d\d")  # fmt: skip


def export(
    model: Path, output: Path, target: str, *extra: str, **environment: str
) -> dict[str, bytes]:
    output.parent.mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, "-c", EXPORT, str(model), target, str(output), *extra],
        cwd=output.parent,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "QDX_CACHE": str(output.parent / "cache"),  # what one kept would hide from the other
            **environment,
        },
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {
        str(path.relative_to(output)): path.read_bytes()
        for path in sorted(output.rglob("*"))
        if path.is_file()
    }


def check_no_trace(files: dict[str, bytes], place: Path) -> None:
    traces = [*TRACES, *(re.escape(str(path).encode()) for path in (place, ROOT))]
    traces += [rb"\b" + re.escape(name.encode()) + rb"\b" for name in (getpass.getuser(), socket.gethostname())
               if len(name) > 4]  # fmt: skip
    found = [(name, trace, match[0]) for name, data in files.items() for trace in traces
             if not name.endswith((".bin", "_data", "vocab.json", "tokenizer.json"))
             and (match := re.search(rb".{0,40}" + trace + rb".{0,40}", data))]  # fmt: skip
    assert found == []
