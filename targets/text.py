"""Targets of qdx written as files to start from, and the JSON Schema of such files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from qdx.exporter.model_faults import KeyPath
from qdx.exporter.strict_toml import Entry, toml_entries
from qdx.targets.model import TargetProfile
from qdx.targets.profile import (
    list_base_layouts,
    list_targets,
    load_target,
    target_data,
    target_sources,
)

__all__ = ["target_schema", "target_text"]

_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_COMMENT: Final = re.compile(r"[ \t]*(#[^\r\n]*)")
_PORTS: Final = frozenset({("layout", "inputs"), ("layout", "outputs")})
"""Tables whose members are tables that stand in one line each."""


@dataclass
class _Comments:
    """The comments of several files, by the key that they speak of.

    Attributes:
        head: What the files say of themselves, above their first key.
        above: In lines of their own above a key.
        beside: After a value, in its line.
    """

    head: list[str] = field(default_factory=list)
    above: dict[KeyPath, list[str]] = field(default_factory=dict)
    beside: dict[KeyPath, str] = field(default_factory=dict)


def target_text(name: str) -> str:
    """Returns a target of qdx as one TOML file that takes nothing from others, with its comments and another name.

    Raises:
        UsageError: There is no target of that name.
    """
    order = list(load_target(name).model_dump(by_alias=True))
    data = {**target_data(name), "name": f"my-{name}"}
    comments = _comments(target_sources(name))
    ordered = {key: data[key] for key in order if key in data}
    return "\n".join([*comments.head, *_table(ordered, (), comments)]) + "\n"


def target_schema() -> dict[str, Any]:
    """Returns the JSON Schema of a target's file, for editors.

    It is weaker than the loader, which also knows what each runtime does and which options a file may set.
    """
    schema = TargetProfile.model_json_schema(by_alias=True)
    for part in (schema, *schema["$defs"].values()):
        # The docstrings of the models are for readers of the code; keys have their words already.
        part.pop("description", None)
    whole = schema.pop("required")
    layout = schema["$defs"]["TargetLayout"]
    layout.pop("required")  # what it names or the target extends has the rest
    layout["properties"]["base"] = {
        "description": "A layout of qdx whose keys this one takes over.",
        "enum": list(list_base_layouts()),
    }
    schema["properties"]["extends"] = {
        "description": "A target of qdx whose keys this one takes over; its kernels come after these.",
        "enum": list(list_targets()),
    }
    schema["required"] = ["name"]
    schema["anyOf"] = [{"required": ["extends"]}, {"required": whole}]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _comments(sources: Sequence[tuple[str, KeyPath]]) -> _Comments:
    """The comments of a target's own file, then of those that it takes over, at the paths of all in one."""
    found = _Comments()
    rows: dict[KeyPath, int] = {}
    for text, prefix in sources:
        own: dict[KeyPath, int] = {}
        for index, (entry, lines, beside) in enumerate(_commented(text)):
            path = (*prefix, *entry.path)
            at = next((at for at, part in enumerate(path) if isinstance(part, int)), None)
            if at is not None:  # a row comes after those of the files before
                number = int(path[at])
                own[path[:at]] = number + 1
                path = (*path[:at], rows.get(path[:at], 0) + number, *path[at + 1 :])
            if not index and not prefix:
                found.head += lines
            elif lines:
                found.above.setdefault(path if index else prefix, []).extend(lines)
            if beside:
                found.beside.setdefault(path, beside)
        for path, count in own.items():
            rows[path] = rows.get(path, 0) + count
    return found


def _commented(text: str) -> Iterator[tuple[Entry, list[str], str]]:
    """Headers and keys that begin a line, each with the comments above it and the one beside it."""
    before = 0
    for entry in toml_entries(text):
        line = text.rfind("\n", 0, entry.start) + 1
        if line < before or text[line : entry.start].strip():
            continue
        beside = _COMMENT.match(text, entry.end)
        above = [one.strip() for one in text[before:line].splitlines()]
        yield entry, [one for one in above if one.startswith("#")], beside[1] if beside else ""
        before = text.find("\n", entry.end) + 1 or len(text)


def _table(data: dict[str, Any], path: KeyPath, comments: _Comments) -> Iterator[str]:
    """The lines of a table: its values, then its tables, then its lists of tables."""
    kinds: tuple[list[str], ...] = ([], [], [])
    for key, value in data.items():
        listed = isinstance(value, list) and bool(value) and isinstance(value[0], dict)
        kinds[2 if listed else isinstance(value, dict) and path not in _PORTS].append(key)
    for key in kinds[0]:
        yield from _line(f"{_key(key)} = {_value(data[key])}", (*path, key), comments)
    for key in kinds[1]:
        here = (*path, key)
        yield from ("", *_line(f"[{_header(here)}]", here, comments))
        yield from _table(data[key], here, comments)
    for key in kinds[2]:
        for index, row in enumerate(data[key]):
            here = (*path, key, index)
            yield from ("", *_line(f"[[{_header((*path, key))}]]", here, comments))
            yield from _table(row, here, comments)


def _line(text: str, path: KeyPath, comments: _Comments) -> Iterator[str]:
    yield from comments.above.get(path, [])
    yield f"{text} {comments.beside.get(path, '')}".rstrip()


def _header(path: KeyPath) -> str:
    return ".".join(_key(str(part)) for part in path)


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _value(name)


def _value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, dict):
        pairs = (f"{_key(key)} = {_value(item)}" for key, item in value.items())
        return f"{{ {', '.join(pairs)} }}"
    # Of text, numbers and booleans, JSON is TOML; no text here holds what both cannot print.
    return json.dumps(value, ensure_ascii=False)
