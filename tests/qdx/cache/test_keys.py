from __future__ import annotations

import pytest

from qdx.cache.keys import key_of
from qdx.exporter.errors import InternalError

PARTS = {"weight": "ab", "scheme": {"bits": 8, "axis": None}, "version": 1}


def test_a_key_is_the_digest_of_the_parts_whatever_their_order():
    assert key_of(PARTS) == key_of(dict(reversed(PARTS.items())))
    assert len(key_of(PARTS)) == 64
    assert key_of(PARTS) == "dc66dc404b16198d103f9ddc64eabc46f6c743b9daa2725c878226dd6322c218"


@pytest.mark.parametrize(
    "changes",
    [
        {"weight": "ac"},
        {"scheme": {"bits": 4, "axis": None}},
        {"scheme": {"bits": 8, "axis": 0}},
        {"version": 2},
        {"version": "1"},
        {"version": 1.5},
        {"more": None},
    ],
)
def test_every_part_counts(changes):
    assert key_of({**PARTS, **changes}) != key_of(PARTS)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), b"bytes", {1: 2}, object()])
def test_what_is_not_plain_is_refused(value):
    with pytest.raises(InternalError):
        key_of({"part": value})
