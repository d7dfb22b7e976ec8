"""JSON from strangers: one meaning, or an error with line and column.

`json.loads` takes the last of two equal keys, `NaN`, `1e999` and integers of any length. A file
that two readers understand differently is an attack vehicle, so all of these are refused. The
C parser decides; only after a refusal a slow scan finds the place for the message.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from qdx.exporter.errors import InternalError, InvalidInput, InvalidModel, quoted
from qdx.exporter.json_faults import excerpt, fault_of, line_column, skip_space
from qdx.exporter.limits import JSON_DEPTH, JSON_INT_DIGITS, JSON_INT_LIMIT

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

__all__ = [
    "CONFIG",
    "STRICT",
    "JsonRules",
    "dump_json",
    "one_line_json",
    "parse_json",
    "parse_json_list",
    "position_of",
    "positions_of",
]

_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+', re.DOTALL)
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class JsonRules:
    """What a JSON text may hold beyond the strict minimum.

    Attributes:
        depth: Most containers inside each other.
        big_ints: Whether integers may reach 40 digits instead of 2**53.
        infinity: Whether `Infinity` and `-Infinity` are numbers. `NaN` never is.
    """

    depth: int = JSON_DEPTH
    big_ints: bool = False
    infinity: bool = False


STRICT: Final = JsonRules()
# Written by other libraries: `model_max_length` is int(1e30), `lambda_min_clipped` is -Infinity.
CONFIG: Final = JsonRules(big_ints=True, infinity=True)


class _Fault(Exception):  # noqa: N818
    """A rule is broken; the place is not known yet."""


def parse_json(
    text: str,
    *,
    source: str,
    error: type[InvalidInput] = InvalidModel,
    rules: JsonRules = STRICT,
) -> dict[str, Any]:
    """Parses an untrusted JSON object.

    Args:
        text: The whole text.
        source: Name for messages, usually the path.
        error: Class of the error raised.
        rules: Relaxations.

    Returns:
        The object. Keys are unique, numbers finite, strings free of NUL and lone surrogates.

    Raises:
        InvalidInput: Or the subclass given, with source, line and column.
    """
    value = _parsed(text, source, error, rules)
    if not isinstance(value, dict):
        raise error(f"{quoted(f'{source}:1:1')}: found {_kind(value)}, expected an object")
    return value


def parse_json_list(
    text: str, *, source: str, error: type[InvalidInput] = InvalidModel
) -> list[Any]:
    """Parses an untrusted JSON list; arguments and errors are those of `parse_json`, by its strictest rules."""
    value = _parsed(text, source, error, STRICT)
    if not isinstance(value, list):
        raise error(f"{quoted(f'{source}:1:1')}: found {_kind(value)}, expected an array")
    return value


def _parsed(text: str, source: str, error: type[InvalidInput], rules: JsonRules) -> Any:
    """Any value that a text holds by the rules."""
    try:
        value = json.loads(  # noqa: TID251
            text,
            object_pairs_hook=_unique,
            parse_int=lambda digits: _int(digits, rules),
            parse_float=_float,
            parse_constant=lambda name: _constant(name, rules),
        )
        _check_tree(value, rules)
    except json.JSONDecodeError as bad:
        fault = fault_of(text, bad.pos, bad.msg)
        where = quoted(f"{source}:{line_column(text, fault.offset)}")
        shown = excerpt(text, fault.offset)
        raise error(f"{where}: {fault.words}\n{shown}", hint=fault.hint) from None
    except (_Fault, RecursionError) as bad:
        offset, reason = _first_fault(text, rules) or (0, str(bad))
        raise error(f"{quoted(f'{source}:{line_column(text, offset)}')}: {reason}") from None
    return value


def dump_json(value: object, *, indent: int | None = 2) -> bytes:
    """Returns the canonical bytes of a JSON value: sorted keys, ASCII, one newline at the end.

    Args:
        value: Plain JSON.
        indent: Spaces for each level; None for one line.

    Raises:
        InternalError: If the value is not plain JSON (other types, NaN, keys that are not text).
    """
    try:
        _check_plain(value)
        separators = (",", ":") if indent is None else None
        text = json.dumps(
            value,
            sort_keys=True,
            indent=indent,
            separators=separators,
            ensure_ascii=True,
            allow_nan=False,
        )
    except (TypeError, ValueError, RecursionError) as bad:
        raise InternalError(f"cannot write as JSON: {bad}") from bad
    return text.encode("ascii") + b"\n"


def one_line_json(value: object) -> str:
    """Returns a JSON value as people type it: one line with spaces, keys in their order, letters of all scripts."""
    _check_plain(value)
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def position_of(text: str, path: tuple[str | int, ...]) -> str:
    """Finds where the value at a path begins, for messages about accepted JSON.

    Args:
        text: JSON text that `parse_json` has accepted.
        path: Keys and indices from the root, as pydantic reports them in `loc`.

    Returns:
        `line:column`, both from 1. A member is placed at its key. Where the path leads nowhere
        (a missing key) the place of the longest part that exists.
    """
    return positions_of(text, [path])[0]


def positions_of(text: str, paths: Sequence[tuple[str | int, ...]]) -> list[str]:
    """Finds where the values at several paths begin, in one scan; each as `position_of` does."""
    best: dict[tuple[str | int, ...], int] = {}
    wanted = {path[:length] for path in paths for length in range(len(path) + 1)}
    for offset, here in _places(text):
        if here in wanted:
            best.setdefault(here, offset)
            if len(best) == len(wanted):
                break
    return [line_column(text, best.get(_longest(path, best), 0)) for path in paths]


def _longest(
    path: tuple[str | int, ...], known: Collection[tuple[str | int, ...]]
) -> tuple[str | int, ...]:
    """The longest beginning of a path that is known; the root is."""
    return next(path[:n] for n in range(len(path), -1, -1) if not n or path[:n] in known)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _Fault("a key appears twice")
    return members


def _int(digits: str, rules: JsonRules) -> int:
    if (reason := _int_fault(digits, rules)) is not None:
        raise _Fault(reason)
    return int(digits)


def _int_fault(digits: str, rules: JsonRules) -> str | None:
    # The length is checked first: converting 4,000 digits is itself the attack.
    if len(digits) > JSON_INT_DIGITS + 1:
        return f"integer of {len(digits)} characters, expected less than 2**53"
    if not rules.big_ints and abs(int(digits)) >= JSON_INT_LIMIT:
        return f"integer {digits}, expected less than 2**53"
    return None


def _float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise _Fault("number out of range")
    return value


def _constant(name: str, rules: JsonRules) -> float:
    if name == "NaN" or not rules.infinity:
        raise _Fault(f"found {name}")
    return float(name.replace("Infinity", "inf"))


def _check_tree(root: object, rules: JsonRules) -> None:
    """Checks depth and text without recursion."""
    pending: list[tuple[object, int]] = [(root, 1)]
    while pending:
        value, depth = pending.pop()
        if isinstance(value, str):
            if _text_fault(value) is not None:
                raise _Fault("bad text")
        elif isinstance(value, dict | list):
            if depth > rules.depth:
                raise _Fault("too deep")
            pending.extend((item, depth + 1) for item in value)
            if isinstance(value, dict):
                pending.extend((item, depth + 1) for item in value.values())


def _text_fault(text: str) -> str | None:
    if "\x00" in text:
        return "text holds a NUL character"
    if _SURROGATE.search(text):
        return "text holds half of a surrogate pair"
    return None


def _first_fault(text: str, rules: JsonRules) -> tuple[int, str] | None:
    """Finds the first token that breaks a rule. Slow: used only to write the message."""
    keys: list[set[str] | None] = []
    for match in _TOKEN.finditer(text):
        piece, offset = match.group(), match.start()
        if piece in "{[":
            keys.append(set() if piece == "{" else None)
            if len(keys) > rules.depth:
                return offset, f"nested deeper than {rules.depth}"
        elif piece in "}]":
            keys.pop()
        elif piece[0] == '"':
            reason = _string_fault(text, match, keys[-1] if keys else None)
            if reason is not None:
                return offset, reason
        elif piece not in ":,":
            reason = _number_fault(piece, rules)
            if reason is not None:
                return offset, reason
    return None


def _string_fault(text: str, match: re.Match[str], keys: set[str] | None) -> str | None:
    content = json.loads(match.group())  # noqa: TID251
    if (reason := _text_fault(content)) is not None:
        return reason
    if keys is None or not _is_key(text, match.end()):
        return None
    if content in keys:
        return f"key {quoted(content)} appears twice, expected once"
    keys.add(content)
    return None


def _number_fault(piece: str, rules: JsonRules) -> str | None:
    if piece in {"NaN", "Infinity", "-Infinity"}:
        allowed = piece != "NaN" and rules.infinity
        return None if allowed else f"found {piece}, expected a finite number"
    if piece in {"true", "false", "null"}:
        return None
    if re.fullmatch(r"-?[0-9]+", piece):
        return _int_fault(piece, rules)
    return None if math.isfinite(float(piece)) else f"number {quoted(piece)} is out of range"


def _places(text: str) -> Iterator[tuple[int, tuple[str | int, ...]]]:
    """Yields the offset and path of each value and key, in text order."""
    stack: list[str | int] = []
    yield skip_space(text, 0), ()
    for match in _TOKEN.finditer(text):
        piece, offset = match.group(), match.start()
        if piece in "{[":
            stack.append("" if piece == "{" else 0)
            if piece == "[":
                yield skip_space(text, match.end()), tuple(stack)
        elif piece in "}]":
            stack.pop()
        elif piece == "," and isinstance(stack[-1], int):
            stack[-1] += 1
            yield skip_space(text, match.end()), tuple(stack)
        elif piece[0] == '"' and _is_key(text, match.end()):
            stack[-1] = json.loads(piece)  # noqa: TID251
            yield offset, tuple(stack)


def _is_key(text: str, end: int) -> bool:
    after = skip_space(text, end)
    return after < len(text) and text[after] == ":"


def _kind(value: object) -> str:
    names = {
        list: "an array",
        str: "text",
        bool: "a boolean",
        dict: "an object",
        type(None): "null",
    }
    return names.get(type(value), "a number")


def _check_plain(root: object) -> None:
    pending = [root]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            if not all(isinstance(key, str) for key in value):
                raise TypeError("a key is not text")
            pending.extend(value.values())
        elif isinstance(value, list | tuple):
            pending.extend(value)
        elif not isinstance(value, str | int | float | bool | None):
            raise TypeError(f"a value is of type {type(value).__name__}")
