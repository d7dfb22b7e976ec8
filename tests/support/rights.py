"""What a user without rights sees, also where the tests run as root, who may look everywhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["closed_neighbour"]

_NOBODY = 65534


@contextmanager
def closed_neighbour(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Works in a folder that holds `closed`, a folder into which nobody may look, and has no rights until it ends."""
    monkeypatch.chdir(folder)
    folder.chmod(0o755)
    closed = Path("closed")
    closed.mkdir(mode=0)
    was = os.geteuid()
    if was == 0:
        os.seteuid(_NOBODY)
    try:
        yield closed
    finally:
        os.seteuid(was)
        closed.chmod(0o755)
