"""The blocks of code in a page of Markdown, and what the comment before each says of running it."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from tests.support.layers import ROOT

__all__ = ["PAGES", "Block", "blocks_of", "command_of", "pages"]

PAGES = ("README.md", "CONTRIBUTING.md", "docs/*.md")
_FENCE = re.compile(
    r"^(?:<!-- (?P<mark>[a-z ]+): (?P<why>.+?) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_MARKS = frozenset({"", "slow", "not run"})
_OTHER_PROGRAMS = frozenset(
    {"docker", "git", "hf", "make", "mkdir", "pip", "pre-commit", "ray", ".venv-test/bin/pytest"}
)


@dataclass(frozen=True)
class Block:
    """One block of code.

    Attributes:
        language: What stands behind the backticks.
        text: Its lines.
        line: Number of its first line in the page.
        mark: `slow` or `not run`, empty for neither.
        why: The reason for the mark.
    """

    language: str
    text: str
    line: int
    mark: str = ""
    why: str = ""

    @property
    def commands(self) -> list[str]:
        """Lines of a shell block, joined where a backslash continues them."""
        joined = self.text.replace("\\\n", " ")
        return [line for line in joined.splitlines() if line and not line.startswith("#")]


def pages() -> list[str]:
    """Paths of all pages with blocks to check."""
    return [path.relative_to(ROOT).as_posix() for glob in PAGES for path in sorted(ROOT.glob(glob))]


def blocks_of(text: str) -> list[Block]:
    """The fenced blocks of a page, in order.

    Raises:
        ValueError: A comment before a block is none of those that mean something.
    """
    found = []
    for match in _FENCE.finditer(text):
        mark, line = match["mark"] or "", text[: match.start("text")].count("\n") + 1
        if mark not in _MARKS:
            raise ValueError(f"line {line}: `{mark}` is not one of {sorted(_MARKS)}")
        found.append(Block(match["language"], match["text"], line, mark, match["why"] or ""))
    return found


def command_of(line: str) -> tuple[list[str], Path | None]:
    """The words of a command, and the file that its output goes to.

    Raises:
        ValueError: The program is not one that pages may show.
    """
    words = shlex.split(line, comments=True)
    if words[0] not in {"qdx", *_OTHER_PROGRAMS}:
        raise ValueError(f"`{words[0]}` is not a program that pages show")
    if ">" in words:
        place = words.index(">")
        return words[:place], Path(words[place + 1])
    return words, None
