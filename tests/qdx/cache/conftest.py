"""A store on a disk of the test's own."""

from __future__ import annotations

import pytest

from qdx.cache.store import Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "cache" / "v1")
