"""Patterns by which other tools select modules, as the globs of our rules.

A glob of a rule has `*` for any run and `?` for any character, dots included, and matches the whole key of an operation: its module's name,
with `#2` behind it for a second call. What a foreign pattern says beyond that is refused with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Literal

from qdx.exporter.limits import PATTERN_ALTERNATIVES_LIMIT, PATTERN_LIMIT

__all__ = [
    "NeedsNamesError",
    "NoGlobError",
    "containing",
    "globs_of_fnmatch",
    "globs_of_regex",
    "keys_of",
    "module_and_below",
    "names_of_regex",
    "without_suffix",
]

How = Literal["search", "match", "fullmatch"]

_ALLOWED: Final = re.compile(r"[A-Za-z0-9_.#*?]+", re.ASCII)
_DIGITS: Final = list("0123456789")
_REPETITIONS_MOST: Final = 6
_PLAIN: Final = re.compile(r"[A-Za-z0-9_]", re.ASCII)


class NoGlobError(ValueError):
    """A pattern that no globs stand for; the text says why."""


class NeedsNamesError(NoGlobError):
    """A pattern that the names of a model decide, which `names_of_regex` lists."""


def keys_of(modules: Iterable[str]) -> tuple[str, ...]:
    """Globs for all calls of modules whose whole names match one of some globs."""
    found: dict[str, None] = {}
    for glob in modules:
        _check(glob)
        found[glob] = None
        if not glob.endswith("*"):
            found[f"{glob}#*"] = None
    return tuple(found)


def module_and_below(name: str) -> tuple[str, ...]:
    """Globs for a module of a name and for the modules in it."""
    return (name, f"{name}.*")


def containing(text: str) -> tuple[str, ...]:
    """The glob for names that hold a text anywhere."""
    return (_squeezed(f"*{text}*"),)


def without_suffix(pattern: str, suffix: str) -> tuple[str, ...]:
    """Globs for the names that match a pattern once a suffix is put behind them.

    >>> without_suffix("*to_q*", ".weight_quantizer")
    ('*to_q*',)
    >>> without_suffix("*weight_quantizer", ".weight_quantizer")
    ('*',)
    """
    found = dict.fromkeys(_squeezed(glob) for glob in _quotients(pattern, suffix))
    kept = [
        one for one in found if not any(one != other and _covers(other, one) for other in found)
    ]
    return tuple(kept)


def _quotients(pattern: str, suffix: str) -> set[str]:
    """What is left of a pattern in all ways in which its end matches a suffix."""
    states, done = {(pattern, suffix)}, set()
    seen = set(states)
    while states:
        left, rest = states.pop()
        if not rest:
            done.add(left)
            continue
        following: list[tuple[str, str]] = []
        if left.endswith("*"):
            following = [(left[:-1], rest), (left, rest[:-1])]
        elif left and left[-1] in {"?", rest[-1]}:
            following = [(left[:-1], rest[:-1])]
        fresh = [one for one in following if one not in seen]
        seen.update(fresh)
        states.update(fresh)
    return done


def _covers(wide: str, narrow: str) -> bool:
    """Whether a glob certainly matches all that another does: read as a text, the other one is matched by it."""
    return (
        re.fullmatch(
            "".join(".*" if c == "*" else "[^*]" if c == "?" else re.escape(c) for c in wide),
            narrow,
        )
        is not None
    )


def globs_of_fnmatch(pattern: str) -> tuple[str, ...]:
    """Globs for the names that a pattern of the shell matches whole; `[qkv]` becomes three.

    Raises:
        NoGlobError: It has a set that cannot be listed, or characters that no name has.
    """
    return _alternatives(pattern, list(_shell_parts(pattern)))


def globs_of_regex(pattern: str, *, how: How = "search") -> tuple[str, ...]:
    r"""Globs for the names that a regular expression matches.

    >>> globs_of_regex(r".*attn\.(to_q|to_k)$")
    ('*attn.to_q', '*attn.to_k')

    Args:
        pattern: The expression.
        how: Where the tool looks for it, by the names of Python: anywhere (`search`), at the beginning (`match`), or in the whole name.

    Raises:
        NeedsNamesError: It matches numbers of any length, which no glob says.
        NoGlobError: It says what no globs say: repetitions of a set, other than of any character, or lookarounds.
    """
    reader = _Regex(pattern)
    found = reader.choices(how)
    if reader.numbers:
        raise NeedsNamesError("matches numbers of any length, which no glob says")
    return _alternatives(pattern, [found])


def names_of_regex(pattern: str, names: Iterable[str], *, how: How = "search") -> tuple[str, ...]:
    """The names that a regular expression of the kind that `globs_of_regex` reads matches.

    None of these has a repetition inside of a repetition, so that the search takes no longer than a power of a name's length.

    Raises:
        NoGlobError: It is of another kind.
    """
    _Regex(pattern).choices(how)
    if sum(pattern.count(sign) for sign in "*+") > _REPETITIONS_MOST:
        raise NoGlobError(f"repeats more than {_REPETITIONS_MOST} times")
    test = getattr(re.compile(pattern, re.ASCII), how)
    return tuple(name for name in names if len(name) <= PATTERN_LIMIT and test(name))


def _alternatives(pattern: str, parts: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """The products of alternatives, as globs."""
    if len(pattern) > PATTERN_LIMIT:
        raise NoGlobError(f"is of {len(pattern)} characters, at most {PATTERN_LIMIT} are read")
    found = [""]
    for part in parts:
        if len(found) * len(part) > PATTERN_ALTERNATIVES_LIMIT:
            raise NoGlobError(f"stands for more than {PATTERN_ALTERNATIVES_LIMIT} globs")
        found = [start + more for start in found for more in part]
    globs = tuple(dict.fromkeys(_squeezed(one) for one in found))
    for glob in globs:
        _check(glob)
    return globs


def _check(glob: str) -> None:
    if not _ALLOWED.fullmatch(glob):
        raise NoGlobError("has characters that no module's name has")
    if len(glob) > 256:
        raise NoGlobError("is longer than a module's name can be")


def _squeezed(glob: str) -> str:
    return re.sub(r"\*+", "*", glob)


def _shell_parts(pattern: str) -> Iterator[list[str]]:
    at = 0
    while at < len(pattern):
        if pattern[at] == "[":
            end = pattern.find("]", at + 2)
            if end > 0:
                yield _members(pattern[at + 1 : end].replace("!", "^", 1))
                at = end + 1
                continue
        yield [pattern[at]]
        at += 1


def _members(inside: str) -> list[str]:
    """The characters of a set."""
    if inside.startswith("^"):
        raise NoGlobError("has a set of what must not be there")
    found: list[str] = []
    at = 0
    while at < len(inside):
        if inside[at + 1 : at + 2] == "-" and at + 2 < len(inside):
            first, last = ord(inside[at]), ord(inside[at + 2])
            if not 0 <= last - first <= 128:
                raise NoGlobError("has a set that cannot be listed")
            found += map(chr, range(first, last + 1))
            at += 3
        else:
            found.append(inside[at])
            at += 1
    if not all(_PLAIN.fullmatch(one) or one == "." for one in found):
        raise NoGlobError("has a set of characters that no module's name has")
    return list(dict.fromkeys(found))


class _Regex:
    """A regular expression of the plainest kind, as alternatives of globs."""

    def __init__(self, pattern: str) -> None:
        if len(pattern) > PATTERN_LIMIT:
            raise NoGlobError(f"is of {len(pattern)} characters, at most {PATTERN_LIMIT} are read")
        self._text = pattern
        self._at = 0
        self._depth = 0
        self.numbers = False

    def choices(self, how: How) -> list[str]:
        """The alternatives of the whole expression, open at their ends where it does not say."""
        found: list[str] = []
        while True:
            begins = self._skip("^") or how != "search"
            branch = self._sequence()
            ends = self._skip("$") or how == "fullmatch"
            found += [f"{'' if begins else '*'}{one}{'' if ends else '*'}" for one in branch]
            if not self._skip("|"):
                break
        if self._at < len(self._text):
            raise NoGlobError(f"has `{self._peek()}` in its midst")
        return self._limited(found)

    def _skip(self, character: str) -> bool:
        if self._peek() != character:
            return False
        self._at += 1
        return True

    def _either(self) -> list[str]:
        found = self._sequence()
        while self._skip("|"):
            found = self._limited([*found, *self._sequence()])
        return found

    def _sequence(self) -> list[str]:
        found = [""]
        while self._peek() not in {"", "|", ")", "$"}:
            atom = self._atom()
            repeated = self._repetition(atom)
            found = self._limited([start + more for start in found for more in repeated])
        return found

    def _repetition(self, atom: list[str]) -> list[str]:
        sign = self._peek()
        if sign not in {"*", "+", "?", "{"}:
            return atom
        if sign == "{":
            raise NoGlobError("repeats something a number of times")
        self._at += 1
        if self._peek() in {"?", "+"}:  # lazy or possessive: the names that match are the same
            if self._peek() == "+":
                raise NoGlobError("has a possessive repetition")
            self._at += 1
        if sign == "?":
            return ["", *atom]
        if atom == _DIGITS and sign == "+":
            self.numbers = True
            return ["?*"]
        if atom == ["?"]:
            return ["*"] if sign == "*" else ["?*"]
        raise NoGlobError("repeats something other than any character")

    def _atom(self) -> list[str]:
        character = self._peek()
        self._at += 1
        if character == ".":
            return ["?"]
        if character == "(":
            return self._group()
        if character == "[":
            end = self._text.find("]", self._at + 1)
            if end < 0:
                raise NoGlobError("has a set without an end")
            inside = self._text[self._at : end].replace("\\.", ".")
            self._at = end + 1
            return _members(inside)
        if character == "\\":
            return self._escaped()
        if character in "^$*+?{}]":
            raise NoGlobError(f"has `{character}` in its midst")
        return [character]

    def _escaped(self) -> list[str]:
        character = self._peek()
        self._at += 1
        if character == "d":
            return _DIGITS
        if character == "Z":
            raise NoGlobError("has `\\Z` in its midst")
        if character and not character.isalnum():
            return [character]
        raise NoGlobError(f"has `\\{character}`, a class of characters")

    def _group(self) -> list[str]:
        self._depth += 1
        if self._depth > 16:
            raise NoGlobError("has groups deeper than 16")
        if self._text.startswith("?", self._at):
            if not self._text.startswith("?:", self._at):
                raise NoGlobError("looks around, or names a group")
            self._at += 2
        found = self._either()
        if self._peek() != ")":
            raise NoGlobError("opens a group that has no end")
        self._at += 1
        self._depth -= 1
        return found

    def _limited(self, found: list[str]) -> list[str]:
        found = list(dict.fromkeys(found))
        if len(found) > PATTERN_ALTERNATIVES_LIMIT:
            raise NoGlobError(f"stands for more than {PATTERN_ALTERNATIVES_LIMIT} globs")
        return found

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]
