"""What is wrong with a text that should be JSON: the usual slips in words, with the place as an excerpt.

The parser only says what it wanted next. People write single quotes, a comma too many, Python's `True`, a comment, or lose
their quotes to a shell; each has words of its own here. Nothing of it is ever accepted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from qdx.exporter.errors import quoted, visible

__all__ = ["JsonFault", "excerpt", "fault_of", "line_column", "skip_space"]

_SPACE: Final = " \t\r\n"
_WORD: Final = re.compile(r"[A-Za-z_$][\w.$-]*", re.ASCII)
_TYPOGRAPHIC: Final = frozenset("\u2018\u2019\u201a\u201c\u201d\u201e\u00ab\u00bb")
_LITERALS: Final = {
    "True": "true",
    "TRUE": "true",
    "False": "false",
    "FALSE": "false",
    "None": "null",
    "NULL": "null",
    "nil": "null",
    "undefined": "null",
}
_CLOSERS: Final = {"{": "}", "[": "]"}
_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]]', re.DOTALL)
_WIDTH: Final = 72
"""Characters of an excerpt."""


@dataclass(frozen=True)
class JsonFault:
    """What keeps a text from being JSON.

    Attributes:
        offset: Where, in characters from the start.
        words: What was found and what was expected.
        hint: What to write instead.
    """

    offset: int
    words: str
    hint: str


def fault_of(text: str, offset: int, said: str) -> JsonFault:
    """Puts what a parser of JSON said into words.

    Args:
        text: The whole text, which the parser has refused.
        offset: Where it stopped.
        said: Its own words, such as `Expecting value`.
    """
    if not text.strip(_SPACE):
        return JsonFault(0, "empty, expected JSON", 'write an object, such as `{"key": "value"}`')
    if text.startswith("\ufeff"):
        return JsonFault(0, "a byte order mark (BOM), expected plain UTF-8", "save it as UTF-8 without a BOM")  # fmt: skip
    if said.startswith("Unterminated string"):
        return JsonFault(
            offset, 'text without an end, expected a closing `"`', 'add the missing `"`'
        )
    if said.startswith("Invalid control"):
        return JsonFault(offset, f"{quoted(text[offset])} inside of text", "write a line break as `\\n` and a tab as `\\t`")  # fmt: skip
    if said.startswith("Invalid \\"):
        return JsonFault(offset, "a backslash that begins no escape", "write a backslash as `\\\\`")
    place = skip_space(text, offset)
    if place >= len(text):
        return _cut_short(text)
    return _comma(text, place) or _character(text, place, said)


def excerpt(text: str, offset: int) -> str:
    """Returns the line of a place, shortened and safe to show, with a mark under the place.

    >>> print(excerpt("{'a': 1}", 1))
      {'a': 1}
       ^
    """
    start = text.rfind("\n", 0, offset) + 1
    end = text.find("\n", offset)
    line, at = text[start : end if end >= 0 else len(text)].rstrip("\r"), offset - start
    first = max(0, min(at - _WIDTH // 2, len(line) - _WIDTH))
    before = ("\u2026" if first else "") + visible(line[first:at])
    after = visible(line[at : first + _WIDTH]) + ("\u2026" if first + _WIDTH < len(line) else "")
    return f"  {before}{after}\n  {' ' * len(before)}^"


def line_column(text: str, offset: int) -> str:
    """Returns a place as `line:column`, both from 1."""
    line = text.count("\n", 0, offset) + 1
    return f"{line}:{offset - (text.rfind(chr(10), 0, offset) + 1) + 1}"


def _comma(text: str, place: int) -> JsonFault | None:
    """A comma before a closing bracket, whether the parser stopped at one or at the other."""
    hint = "leave the last comma out"
    if text[place] in "}]" and text[:place].rstrip(_SPACE).endswith(","):
        comma = text.rindex(",", 0, place)
        return JsonFault(comma, f"a comma before `{text[place]}`, expected none", hint)
    behind = skip_space(text, place + 1)
    if text[place] == "," and behind < len(text) and text[behind] in "}]":
        return JsonFault(place, f"a comma before `{text[behind]}`, expected none", hint)
    return None


def _character(text: str, place: int, said: str) -> JsonFault:
    """What stands at the place where the parser stopped."""
    character, two = text[place], text[place : place + 2]
    word = _WORD.match(text, place)
    if two == '\\"':
        return JsonFault(place, "a backslash before a quote, expected the quote alone", 'write `"` for `\\"`')  # fmt: skip
    if (
        place == skip_space(text, 0)
        and character == "'"
        and text[place + 1 :].lstrip()[:1] in _CLOSERS
    ):
        return JsonFault(place, f"a quote before `{text[place + 1 :].lstrip()[0]}`, expected none", "leave the outer quotes out")  # fmt: skip
    if character == "'":
        return JsonFault(place, "single quotes, expected double quotes", "write \"text\" for 'text'")  # fmt: skip
    if character in _TYPOGRAPHIC:
        return JsonFault(place, f"typographic quotes {quoted(character)}, expected plain double quotes", 'write "text"')  # fmt: skip
    if two in {"//", "/*"} or character == "#":
        return JsonFault(place, "a comment, which JSON does not have", "leave it out; a plan's `why` and `description` hold words")  # fmt: skip
    if place == skip_space(text, 0) and word:
        return JsonFault(place, f"found {quoted(word[0])}, expected an object", 'write an object, such as `{"key": "value"}`')  # fmt: skip
    if said == "Extra data":
        return JsonFault(place, f"{quoted(text[place : place + 16])} behind the end, expected nothing", "give one object")  # fmt: skip
    if word and not said.startswith("Expecting ','"):
        return _word(word[0], place, is_key=said.startswith("Expecting property"))
    wanted = "a key in double quotes" if said.startswith("Expecting property") else "a value"
    if said.startswith("Expecting ':'"):
        return JsonFault(place, f"found {quoted(character)}, expected `:` behind the key", 'write `"key": value`')  # fmt: skip
    if said.startswith("Expecting ','"):
        return JsonFault(place, f"found {quoted(character)}, expected `,` or a closing bracket", "a comma stands between two values")  # fmt: skip
    return JsonFault(place, f"found {quoted(character)}, expected {wanted}", 'keys and text stand in double quotes: `{"key": "text"}`')  # fmt: skip


def skip_space(text: str, offset: int) -> int:
    """Returns where the white space of JSON that begins at an offset ends."""
    while offset < len(text) and text[offset] in _SPACE:
        offset += 1
    return offset


def _word(word: str, place: int, *, is_key: bool) -> JsonFault:
    if not is_key and word in _LITERALS:
        meant = _LITERALS[word]
        return JsonFault(place, f"found `{word}`, expected `{meant}`", f"write {meant}")
    what = "a key" if is_key else "text"
    return JsonFault(place, f"{quoted(word)} is {what} without quotes, expected double quotes", f'write "{word}"')  # fmt: skip


def _cut_short(text: str) -> JsonFault:
    """A text that ends inside of an object or a list."""
    still_open: list[str] = []
    for match in _TOKEN.finditer(text):
        piece = match.group()
        if piece in _CLOSERS:
            still_open.append(_CLOSERS[piece])
        elif piece in "}]" and still_open:
            still_open.pop()
    closers = "".join(reversed(still_open))
    end = len(text.rstrip(_SPACE))
    if not closers:
        return JsonFault(end, "the text ends, expected a value", "complete it")
    return JsonFault(end, f"the text ends, expected `{quoted(closers)[1:-1]}`", "complete it")
