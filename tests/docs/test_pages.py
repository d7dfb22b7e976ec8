"""Pages lead somewhere, and the reference has every public name. What `make docs` warns of besides is an error there."""

from __future__ import annotations

import re

import pytest

import qdx
from tests.support.doc_blocks import pages
from tests.support.layers import ROOT

_LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([\w-]+))?\)")
LINKED = (*pages(), "SECURITY.md", "CHANGELOG.md", "samples/README.md", "benchmarks/README.md")


def anchors(text):
    """The names by which headings are reached, as GitHub and MyST make them."""
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def dead_links(page, text):
    """Links of a page that lead to no file of the tree, or to no heading of it."""
    dead = []
    for path, anchor in _LINK.findall(text):
        target = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
            dead.append(f"{path}#{anchor}" if anchor else path)
    return dead


@pytest.mark.parametrize("page", LINKED)
def test_links_lead_somewhere(page):
    assert dead_links(page, (ROOT / page).read_text()) == []


@pytest.mark.parametrize(
    "link", ["docs/nothing.md", "docs/targets.md#nothing", "#nothing", "docs/targets.md#verified"]
)
def test_a_dead_link_is_seen(link):
    assert dead_links("README.md", f"See [this]({link}) and [that](docs/targets.md).") == [link]


def test_the_reference_has_every_public_name():
    shown = re.findall(
        r"^\.\. auto(?:function|class|exception):: (\w+)$",
        (ROOT / "docs" / "api.md").read_text(),
        re.MULTILINE,
    )

    assert sorted(shown) == sorted(set(qdx.__all__) - {"__version__"})


def test_every_page_is_in_the_contents():
    contents = (ROOT / "docs" / "index.md").read_text()
    listed = [
        name
        for block in re.findall(r"```\{toctree\}\n(.*?)```", contents, re.DOTALL)
        for name in block.split("\n\n")[1].split()
    ]

    assert sorted(listed) == sorted(
        {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"}
    )
