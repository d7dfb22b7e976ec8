"""How many files an entry holds is limited, by whoever writes and checks it."""

from __future__ import annotations

import pytest

from qdx.cache.entry import check_entry, write_listing
from qdx.exporter.errors import InternalError, InvalidInput


@pytest.fixture
def folder(tmp_path):
    for number in range(4):
        (tmp_path / f"{number}.safetensors").write_bytes(b"x")
    return tmp_path


def test_an_entry_of_more_files_is_written_and_checked_where_more_are_allowed(folder):
    write_listing(folder, "kind", "key", files_limit=4)
    check_entry(folder, "kind", "key", files_limit=4)

    with pytest.raises(InvalidInput, match="more files than the limit of 1"):
        check_entry(folder, "kind", "key", files_limit=1)


def test_an_entry_of_too_many_files_is_not_written(folder):
    with pytest.raises(InternalError, match="more files than the limit of 1"):
        write_listing(folder, "kind", "key", files_limit=1)
