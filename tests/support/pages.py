"""Pages read strictly: every tag is closed where it must be, and no name is given twice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

__all__ = ["Element", "read_page"]

_VOID = frozenset({"meta", "img", "br", "link", "input", "hr"})
# Of SVG, what is written as `<line/>`.
_ALONE = frozenset({"line", "rect", "circle", "path"})


@dataclass
class Element:
    """One element of a page."""

    tag: str
    attributes: dict[str, str]
    children: list[Element | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All text in it, with single spaces."""
        parts = (one if isinstance(one, str) else one.text for one in self.children)
        return " ".join(" ".join(parts).split())

    @property
    def classes(self) -> set[str]:
        return set(self.attributes.get("class", "").split())

    def __iter__(self) -> Iterator[Element]:
        """Every element below, in order."""
        for one in self.children:
            if isinstance(one, Element):
                yield one
                yield from one

    def all(self, tag: str = "", kind: str = "") -> list[Element]:
        """The elements below with a tag and a class."""
        return [
            one for one in self if one.tag == (tag or one.tag) and (not kind or kind in one.classes)
        ]

    def named(self, name: str) -> Element:
        """The element below with an id."""
        return next(one for one in self if one.attributes.get("id") == name)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names), f"<{tag}> has an attribute twice: {names}"
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(element)
        if tag not in _VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in _ALONE, f"<{tag}/> does not close itself"
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def read_page(page: bytes | str) -> Element:
    """The page's tree."""
    reader = _Reader()
    reader.feed(page if isinstance(page, str) else page.decode("utf-8"))
    reader.close()
    assert reader.open == [reader.root], f"<{reader.open[-1].tag}> is not closed"
    names = [one.attributes["id"] for one in reader.root if "id" in one.attributes]
    assert len(set(names)) == len(names), "an id is given twice"
    return reader.root
