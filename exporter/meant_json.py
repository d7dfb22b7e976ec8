"""What somebody meant who wrote a text that is nearly JSON. It is only ever shown as a proposal, never used."""

from __future__ import annotations

import re
from typing import Any, Final

from qdx.exporter.errors import InvalidInput
from qdx.exporter.strict_json import dump_json, parse_json

__all__ = ["meant_json"]

_LIMIT: Final = 4096
"""Longer texts get no proposal."""
_TOKEN: Final = re.compile(
    r"""(?P<space>\s+|//[^\n]*|/\*.*?\*/)"""
    r"""|(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[\u201c\u201e\u201d\u00ab][^\u201c\u201d\u00bb]*[\u201c\u201d\u00bb])"""
    r"""|(?P<mark>[{}\[\],:=])"""
    r"""|(?P<word>[^\s{}\[\],:="'\u201c\u201d\u201e\u00ab\u00bb]+)""",
    re.DOTALL,
)
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?", re.ASCII)
_LITERALS: Final = {"true": "true", "false": "false", "none": "null", "null": "null"}
_CLOSERS: Final = {"{": "}", "[": "]"}


def meant_json(text: str) -> Any:
    """Returns the object or the list that a text may have meant; None where there is no telling.

    Single and typographic quotes count as double ones, words without quotes as text, Python's literals as those of JSON;
    commas too many and comments are left out, brackets that are missing at the end are added.

    >>> meant_json("{'prompt': 'a cat',}")
    {'prompt': 'a cat'}
    """
    bare = text.strip()
    for quote in "'\"":
        if len(bare) > 1 and bare[0] == quote and bare[1:].lstrip()[:1] in _CLOSERS:
            bare = bare[1:].removesuffix(quote)
    if len(bare) > _LIMIT or bare[:1] not in _CLOSERS:
        return None
    if '"' not in bare.replace('\\"', ""):
        bare = bare.replace('\\"', '"')
    pieces = _pieces(bare)
    if pieces is None:
        return None
    try:
        return parse_json(f'{{"meant": {"".join(pieces)}}}', source="", error=InvalidInput)["meant"]
    except InvalidInput:
        return None


def _pieces(text: str) -> list[str] | None:
    """The tokens as strict JSON writes them; None where a character belongs to none."""
    pieces: list[str] = []
    still_open: list[str] = []
    words: list[str] = []
    offset = 0
    while offset < len(text):
        match = _TOKEN.match(text, offset)
        if match is None:
            return None
        offset, piece = match.end(), match.group()
        if match.lastgroup == "word":
            words.append(piece)
            continue
        if match.lastgroup == "space":
            continue
        pieces += _spoken(words)
        words = []
        if match.lastgroup == "text":
            pieces.append(_text(piece))
            continue
        mark = ":" if piece == "=" else piece
        if mark in _CLOSERS:
            still_open.append(_CLOSERS[mark])
        elif mark in "}]":
            if not still_open or still_open.pop() != mark:
                return None
            if pieces and pieces[-1] == ",":
                pieces.pop()
        pieces.append(mark)
    return [*pieces, *_spoken(words), *reversed(still_open)]


def _spoken(words: list[str]) -> list[str]:
    """Words without quotes in a row: a literal, a number, or one text."""
    if not words:
        return []
    if len(words) == 1 and (words[0].lower() in _LITERALS or _NUMBER.fullmatch(words[0])):
        return [_LITERALS.get(words[0].lower(), words[0])]
    return [_string(" ".join(words))]


def _text(piece: str) -> str:
    if piece[0] == '"':
        return piece
    content = piece[1:-1]
    return _string(content.replace("\\'", "'") if piece[0] == "'" else content)


def _string(content: str) -> str:
    return dump_json(content, indent=None).decode().strip()
