"""What all pages have in common: the head with its style sheet, landmarks, and links to the parts."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

from qdx.exporter.files import read_text
from qdx.exporter.limits import MIB
from qdx.verification.report.markup import Markup, escaped

__all__ = ["page"]

_STYLE_LIMIT_BYTES: Final = MIB


@cache
def _style() -> str:
    return read_text(
        # Installers may link files of a package into place.
        Path(__file__).with_name("page.css"),
        _STYLE_LIMIT_BYTES,
        allow_hard_links=True,
    )


def page(
    title: str, header: Markup, links: Mapping[str, str], body: Markup, *, generator: str = "qdx"
) -> bytes:
    """A whole page, without anything that a browser would have to fetch or run.

    Args:
        title: Of the window.
        header: What stands on top.
        links: Words by name of a section.
        body: The sections.
        generator: What wrote it.
    """
    items = "".join(
        f'<li><a href="#{name}">{escaped(words)}</a></li>' for name, words in links.items()
    )
    navigation = (
        f'<nav aria-label="Parts of this page">\n<ul>{items}</ul>\n</nav>\n' if items else ""
    )
    text = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f'<meta name="generator" content="{escaped(generator)}">\n'
        f"<title>{escaped(title)}</title>\n<style>\n{_style()}</style>\n</head>\n<body>\n"
        '<a class="skip" href="#content">Skip to the content</a>\n'
        f'<header>\n{header}</header>\n{navigation}<main id="content" tabindex="-1">\n{body}</main>\n'
        "</body>\n</html>\n"
    )
    return text.encode("utf-8")
