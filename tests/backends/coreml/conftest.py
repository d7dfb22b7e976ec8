"""Garbage of the test file that runs, alone."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def _garbage_of_this_file_alone() -> Iterator[None]:
    """The converter collects garbage each time, which takes a second where much is imported: what is there already need not be looked through again."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
