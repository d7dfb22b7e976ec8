from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")


@pytest.fixture(name="memory_path")
def _memory_path(tmp_path):
    """A folder in memory where there is one: thousands of syncs on a busy disk take minutes."""
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=MEMORY, prefix="qdx-test-") as folder:
        yield Path(folder)
