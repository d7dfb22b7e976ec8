"""TOML from strangers: parsed by the standard library, kept small and plain, with the place of every key.

The standard library tells no places of what it accepted. They are found by a second, simpler reading of the
same text, which is done for messages and comments alone and decides nothing.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from qdx.exporter.errors import InvalidInput, quoted
from qdx.exporter.limits import JSON_INT_LIMIT, TOML_DEPTH, TOML_LINE_LIMIT
from qdx.exporter.model_faults import KeyPath, dotted

__all__ = ["Entry", "parse_toml", "plain_faults", "toml_entries", "toml_positions"]

_AT: Final = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_SPACE: Final = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_BLANK: Final = re.compile(r"[ \t]*")
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
# Text of several lines first: it begins like an empty one. Up to two quotes may stand before those that end it.
_TEXT: Final = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}' r"|'''.*?'{3,5}" r'|"(?:\\.|[^"\\])*"' r"|'[^']*'", re.DOTALL
)
_PLAIN_VALUE: Final = re.compile(r"[^,\]}#\r\n]+")


@dataclass(frozen=True)
class Entry:
    """A key, a table's header, or an item of a list, in a TOML text.

    Attributes:
        path: Keys and indices from the root.
        start: The offset at which it begins: that of its key or bracket.
        end: The offset at which its value ends; that of a header for tables.
    """

    path: KeyPath
    start: int
    end: int


def parse_toml(text: str, *, source: str, error: type[InvalidInput]) -> dict[str, Any]:
    """Parses an untrusted TOML text, whose size the caller has limited.

    Args:
        text: The whole text.
        source: Name for messages, usually the path.
        error: Class of the error raised.

    Returns:
        Tables, lists, text, booleans and finite numbers; all text is of printable characters.

    Raises:
        InvalidInput: Or the subclass given, with source, line and column.
    """
    # Keys stand in one line, and the standard library's time grows with the square of their parts.
    for number, line in enumerate(text.split("\n"), 1):
        if len(line) > TOML_LINE_LIMIT:
            where = quoted(f"{source}:{number}:1")
            raise error(f"{where}: {len(line)} characters, expected at most {TOML_LINE_LIMIT}")
    try:
        value = tomllib.loads(text)
    except RecursionError:
        raise error(f"{quoted(f'{source}:1:1')}: nested deeper than {TOML_DEPTH}") from None
    except ValueError as bad:  # also of integers of thousands of digits, without a place
        where = _place_in(bad, text)
        words = _AT.sub("", str(bad)).partition(";")[0]
        raise error(f"{quoted(f'{source}:{where}')}: {words}, expected TOML") from None
    for path, words in plain_faults(value):
        raise error(f"{quoted(f'{source}:{toml_positions(text, [path])[0]}')}: {words}")
    return value


def toml_positions(text: str, paths: Sequence[KeyPath]) -> list[str]:
    """Finds where the values at several paths begin, in a text that `parse_toml` accepts.

    Returns:
        For each path `line:column`, both from 1: that of its key, its header or its item. Where the path leads nowhere
        (a missing key) the place of the longest part that exists.
    """
    found: dict[KeyPath, int] = {}
    for entry in toml_entries(text):
        for length in range(len(entry.path), 0, -1):
            if entry.path[:length] in found:
                break
            found[entry.path[:length]] = entry.start
    return [_line_column(text, _longest(path, found)) for path in paths]


def toml_entries(text: str) -> Iterator[Entry]:
    """Yields each header, key and list item of a text that `parse_toml` accepts, in text order.

    Tables that a header or a dotted key makes on its way have no entry of their own.
    """
    table: KeyPath = ()
    counts: dict[KeyPath, int] = {}
    at = _skip(text, 0)
    while at < len(text):
        if text[at] == "[":
            listed = text.startswith("[[", at)
            parts, after = _key(text, at + 1 + listed)
            table = _in_latest(parts[:-1], counts)
            if listed:
                whole = (*table, parts[-1])
                counts[whole] = counts.get(whole, -1) + 1
            table = _in_latest(parts, counts)
            end = _blank(text, after) + 1 + listed
            yield Entry(table, at, end)
        else:
            pair = _pair(text, at, table)
            end = pair[0].end
            yield from pair
        at = _skip(text, end)


def _in_latest(parts: Sequence[str], counts: dict[KeyPath, int]) -> KeyPath:
    """A header's path, where a list of tables stands for its latest one."""
    path: KeyPath = ()
    for part in parts:
        path = (*path, part)
        if path in counts:
            path = (*path, counts[path])
    return path


def _pair(text: str, at: int, table: KeyPath) -> list[Entry]:
    """The entry of a key with its value, then those within it."""
    parts, after = _key(text, at)
    path = (*table, *parts)
    inside, end = _value(text, _blank(text, _blank(text, after) + 1), path)
    return [Entry(path, at, end), *inside]


def _value(text: str, at: int, path: KeyPath) -> tuple[list[Entry], int]:
    """The entries within a value, and the offset after it."""
    if text[at] in "\"'":
        return [], _matched(_TEXT, text, at).end()
    if text[at] not in "[{":
        return [], at + len(_matched(_PLAIN_VALUE, text, at).group().rstrip())
    closing = "]" if text[at] == "[" else "}"
    entries: list[Entry] = []
    index, at = 0, _skip(text, at + 1)
    while text[at] != closing:
        if closing == "]":
            within, end = _value(text, at, (*path, index))
            entries += [Entry((*path, index), at, end), *within]
            index += 1
        else:
            pair = _pair(text, at, path)
            entries += pair
            end = pair[0].end
        at = _skip(text, end)
        at = _skip(text, at + 1) if text[at] == "," else at
    return entries, at + 1


def _key(text: str, at: int) -> tuple[list[str], int]:
    """The parts of a dotted key, and the offset after it."""
    parts: list[str] = []
    while True:
        at = _blank(text, at)
        if text[at] in "\"'":
            piece = _matched(_TEXT, text, at).group()
            parts.append(tomllib.loads(f"key = {piece}")["key"])
        else:
            piece = _matched(_BARE_KEY, text, at).group()
            parts.append(piece)
        at += len(piece)
        dot = _blank(text, at)
        if not text.startswith(".", dot):
            return parts, at
        at = dot + 1


def _skip(text: str, at: int) -> int:
    return _matched(_SPACE, text, at).end()


def _blank(text: str, at: int) -> int:
    return _matched(_BLANK, text, at).end()


def _matched(pattern: re.Pattern[str], text: str, at: int) -> re.Match[str]:
    match = pattern.match(text, at)
    assert match is not None, "the text was accepted by tomllib"
    return match


def _longest(path: KeyPath, found: dict[KeyPath, int]) -> int:
    return next((found[path[:n]] for n in range(len(path), 0, -1) if path[:n] in found), 0)


def plain_faults(root: object) -> list[tuple[KeyPath, str]]:
    """What a value holds beyond plain, short and printable data, each with its path; deep nesting comes alone.

    Nothing recurses.
    """
    pending: list[tuple[object, KeyPath]] = [(root, ())]
    faults: list[tuple[KeyPath, str]] = []
    while pending:
        value, path = pending.pop()
        if len(path) > TOML_DEPTH:
            return [(path[:1], f"nested deeper than {TOML_DEPTH}")]
        if isinstance(value, dict):
            pending.extend((item, (*path, key)) for key, item in value.items())
            if not all(key.isprintable() and len(key) <= TOML_LINE_LIMIT for key in value):
                faults.append((path, "a key is long, or holds a character that cannot be printed"))
        elif isinstance(value, list):
            pending.extend((item, (*path, index)) for index, item in enumerate(value))
        elif (words := _scalar_fault(value)) is not None:
            faults.append((path, f"{quoted(dotted(path))} {words}"))
    return faults


def _scalar_fault(value: object) -> str | None:
    if isinstance(value, str):
        if len(value) > TOML_LINE_LIMIT:
            return f"has {len(value)} characters, expected at most {TOML_LINE_LIMIT}"
        return None if value.isprintable() else "holds a character that cannot be printed"
    if isinstance(value, float):
        return None if math.isfinite(value) else f"is {value}, expected a finite number"
    if isinstance(value, int):
        return None if abs(value) < JSON_INT_LIMIT else "is an integer, expected less than 2**53"
    if value is None:  # of JSON
        return None
    return "is a date or a time, expected text, a number or a boolean"


def _place_in(bad: ValueError, text: str) -> str:
    """The place that the standard library names at the end of its message."""
    match = _AT.search(str(bad))
    if match is None:
        return "1:1"
    return f"{match[1]}:{match[2]}" if match[1] else _line_column(text, len(text))


def _line_column(text: str, offset: int) -> str:
    return f"{text.count(chr(10), 0, offset) + 1}:{offset - text.rfind(chr(10), 0, offset)}"
