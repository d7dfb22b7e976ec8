"""Folders that may not take what is to be written, told before anything computes."""

from __future__ import annotations

from pathlib import Path

import pytest

from qdx.analyze.folder_check import check_folder, check_writable
from qdx.exporter.errors import StorageError, UsageError
from tests.support.rights import closed_neighbour


def test_a_folder_that_may_not_be_written_is_refused_at_once(tmp_path, monkeypatch):
    (tmp_path / "open").mkdir(mode=0o777)
    (tmp_path / "open").chmod(0o777)
    with closed_neighbour(tmp_path, monkeypatch) as closed:
        with pytest.raises(StorageError, match="`closed` is not writable"):
            check_writable(closed, "--report")
        with pytest.raises(StorageError, match=r"--output: `\.` is not writable"):
            check_folder(Path("analysis"), force=False)
        check_folder(Path("open") / "analysis", force=False)


def test_a_parent_that_is_none_is_wrong_usage(tmp_path):
    with pytest.raises(UsageError, match="is not a folder"):
        check_folder(tmp_path / "none" / "analysis", force=False)
