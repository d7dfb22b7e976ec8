"""What SECURITY.md says of the tree is so: each test that it names exists, and no promise lacks one."""

from __future__ import annotations

import re

import pytest

from tests.support.layers import ROOT

SECURITY = (ROOT / "SECURITY.md").read_text()
_PROMISE = re.compile(r"^(?:\* |\| )\*\*(.+?)[.,]\*\*", re.MULTILINE)


def promises(text):
    """The names of the promises below that title, up to the next one."""
    return _PROMISE.findall(
        re.split(r"^#+ Promises$", text, flags=re.MULTILINE)[1].split("\n## ")[0]
    )


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`([\w/]+\.py)`", SECURITY))))
def test_every_file_it_names_exists(path):
    assert (ROOT / path).is_file()


def test_every_promise_names_a_test():
    rows = [line for line in SECURITY.splitlines() if line.startswith("| **")]

    assert len(rows) == len(promises(SECURITY))
    assert [row for row in rows if "`tests/" not in row.split("|")[3]] == []


def test_every_promise_of_the_page_has_a_row():
    of_page = promises((ROOT / "docs" / "promises.md").read_text())

    assert len(of_page) >= 5
    assert set(of_page) <= set(promises(SECURITY))
