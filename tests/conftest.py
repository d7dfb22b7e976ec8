"""What every test needs: a cache of the test run's own, never the user's."""

from __future__ import annotations

import gc
import itertools

import pytest

_MANY_OBJECTS = 50_000


def pytest_collection_modifyitems(items):
    """Whole pipelines first: no process is left with a long file when the others have nothing to do any more."""
    items.sort(key=lambda item: not item.nodeid.startswith("tests/qdx/"))


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QDX_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("QDX_CACHE_LIMIT", raising=False)
        yield


@pytest.fixture(scope="module", autouse=True)
def _old_objects_are_left_alone():
    """Libraries make a million objects; Python, and the converter for Core ML each time, would look through them again."""
    if len(gc.get_objects()) > _MANY_OBJECTS:
        gc.collect()
        gc.freeze()


@pytest.fixture(scope="session")
def _caches(tmp_path_factory):
    """A name for each test's cache; few tests make the folder."""
    folder = tmp_path_factory.mktemp("caches")
    return (folder / str(number) for number in itertools.count())


@pytest.fixture(autouse=True)
def _cache_of_one_test(_caches):
    # A patch of its own: a test's `monkeypatch` is to be undone before the other fixtures of that test.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QDX_CACHE", str(next(_caches)))
        yield
