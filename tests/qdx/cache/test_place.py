from __future__ import annotations

import pytest

from qdx.cache import place
from qdx.cache.place import DEFAULT_LIMIT_BYTES, read_size, user_limit_bytes, user_root
from qdx.exporter.errors import UsageError


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch):
    for name in ("QDX_CACHE", "QDX_CACHE_LIMIT", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)


def test_the_folder_named_holds_the_version(monkeypatch, tmp_path):
    monkeypatch.setenv("QDX_CACHE", str(tmp_path))

    assert user_root() == tmp_path / "v1"


def test_the_platform_says_where_caches_are(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(place.sys, "platform", "linux")
    assert user_root() == tmp_path / ".cache" / "qdx" / "v1"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert user_root() == tmp_path / "x" / "qdx" / "v1"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert user_root() == tmp_path / ".cache" / "qdx" / "v1"
    monkeypatch.setattr(place.sys, "platform", "darwin")
    assert user_root() == tmp_path / "Library" / "Caches" / "qdx" / "v1"


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0", 0),
        ("123", 123),
        ("5B", 5),
        ("5GB", 5 * 1000**3),
        ("5 gb", 5 * 1000**3),
        ("5GiB", 5 * 1024**3),
        ("1.5MiB", 3 * 2**19),
        ("2T", 2 * 1000**4),
    ],
)
def test_a_size(monkeypatch, text, size_bytes):
    monkeypatch.setenv("QDX_CACHE_LIMIT", text)

    assert user_limit_bytes() == size_bytes


def test_without_a_limit_the_default_holds():
    assert user_limit_bytes() == DEFAULT_LIMIT_BYTES


@pytest.mark.parametrize("text", ["", "GB", "-1", "1e9", "nan", "5 PB", "5GBs", "1 2", "٣"])
def test_what_is_no_size(text):
    with pytest.raises(UsageError, match=r"QDX_CACHE_LIMIT: .* is not a size"):
        read_size(text, source="QDX_CACHE_LIMIT")
