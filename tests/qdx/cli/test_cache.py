"""`qdx cache` shows and clears what is kept."""

from __future__ import annotations

import json

import pytest

from qdx.cache.store import user_store
from tests.support.processes import KEY, add


@pytest.fixture(autouse=True)
def place(monkeypatch, tmp_path):
    monkeypatch.setenv("QDX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("QDX_CACHE_LIMIT", "5GiB")
    return tmp_path / "cache" / "v1"


def test_an_empty_cache(qdx, place):
    done = qdx("cache")

    assert (done.status, done.out, done.err) == (0, f"{place}: 0 B of 5.0 GiB, empty\n", "")
    assert not place.exists()


def test_what_it_holds_by_kind(qdx, place):
    add(user_store())
    add(user_store(), kind="letters")
    with user_store().working("letters", KEY):
        lines = qdx("cache").out.splitlines()

    assert lines[0].startswith(f"{place}: 2.")
    assert lines[2].split() == ["kind", "entries", "under", "way", "size", "last", "use", "(UTC)"]
    assert [line.split()[:3] for line in lines[3:]] == [["letters", "1", "1"], ["numbers", "1", "0"]]  # fmt: skip


def test_the_same_as_json(qdx, place):
    add(user_store())
    data = json.loads(qdx("cache", "--json").out)

    assert data["root"] == str(place)
    assert data["limit_bytes"] == 5 * 2**30
    (kind,) = data["kinds"]
    assert (kind["kind"], kind["entries"], kind["size_bytes"]) == ("numbers", 1, data["size_bytes"])


def test_clearing_says_what_went(qdx, place):
    add(user_store())
    add(user_store(), kind="letters")

    assert qdx("cache", "clear", "letters").out.startswith("removed 1 entries of letters, ")
    data = json.loads(qdx("cache", "clear", "--json").out)
    assert (data["entries"], data["in_use"], data["root"]) == (1, 0, str(place))
    assert user_store().entries() == []


def test_clearing_says_what_stays(qdx):
    add(user_store())
    held = user_store()
    held.find("numbers", KEY)

    assert "1 stay: in use" in qdx("cache", "clear").out


@pytest.mark.parametrize("kind", ["../x", "Letters", ""])
def test_a_wrong_kind_is_one_message(qdx, kind):
    done = qdx("cache", "clear", kind)

    assert (done.status, done.out) == (2, "")
    assert done.err.count("error: ") == 1
    assert "not a kind of cache entry" in done.err


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("QDX_CACHE_LIMIT", "lots", "`lots` is not a size"),
        ("QDX_CACHE", "/dev/null", "expected the folder of the cache"),
    ],
)
def test_a_wrong_setting_is_one_message(qdx, monkeypatch, name, value, message):
    monkeypatch.setenv(name, value)
    done = qdx("cache")

    assert (done.status, done.out) == (2, "")
    assert done.err.count("error: ") == 1
    assert message in done.err
