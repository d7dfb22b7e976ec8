"""Links to Markdown files of the repository that stand outside `docs/` lead to the pages that include them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from docutils import nodes
from sphinx import addnodes

if TYPE_CHECKING:
    from sphinx.application import Sphinx

PAGES: Final = {
    "README": "index",
    "CHANGELOG": "changelog",
    "CONTRIBUTING": "contributing",
    "SECURITY": "security",
    "benchmarks/README": "benchmarks",
    "samples/README": "samples",
}
"""The page that includes a file, by the file's path in the repository without its `.md`."""


def lead_to_pages(app: Sphinx, doctree: nodes.document) -> None:
    """Changes the target of each link to such a file; others stay, and are warned of where they lead nowhere."""
    for link in doctree.findall(addnodes.pending_xref):
        target, _, heading = str(link.get("reftarget", "")).partition("#")
        if Path(target).is_absolute():  # from a page in `docs/`
            target = os.path.relpath(target, app.srcdir.parent)
        page = PAGES.get(target.removesuffix(".md"))
        if link.get("reftype") == "myst" and page is not None:
            link["refdomain"], link["reftarget"] = "doc", page
            link["reftargetid"] = heading or link.get("reftargetid")


def setup(app: Sphinx) -> dict[str, Any]:
    """Listens to documents that were read."""
    app.connect("doctree-read", lead_to_pages)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
