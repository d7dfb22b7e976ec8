"""Tiny pipelines, built once; and a folder in memory."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from tests.support.smallest import build_smallest, build_smallest_stable_diffusion

MEMORY = Path("/dev/shm")


@pytest.fixture(scope="session")
def smallest(tmp_path_factory):
    """A pipeline of one UNet and a scheduler."""
    return build_smallest(tmp_path_factory.mktemp("smallest") / "model")


@pytest.fixture(scope="session")
def tiny_sd(tmp_path_factory):
    """A pipeline with guidance, a tokenizer and a text encoder."""
    return build_smallest_stable_diffusion(tmp_path_factory.mktemp("sd") / "model")


@pytest.fixture(name="memory_path")
def _memory_path(tmp_path):
    """A folder in memory where there is one: thousands of syncs on a busy disk take minutes."""
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=MEMORY, prefix="qdx-test-") as folder:
        yield Path(folder)
