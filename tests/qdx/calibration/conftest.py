"""The smallest pipeline, traced once, and a place to be told."""

from __future__ import annotations

import pytest

from tests.support.calibrating import Told, prepared


@pytest.fixture(scope="session")
def ddpm(smallest):
    return prepared(smallest, {})


@pytest.fixture
def told():
    return Told()


@pytest.fixture
def often(monkeypatch):
    """Statistics are kept after every call that is observed."""
    monkeypatch.setattr("qdx.calibration.sample._KEEP_EVERY_S", 0.0)
    monkeypatch.setattr("qdx.calibration.sample._KEEP_RATIO", 0.0)
