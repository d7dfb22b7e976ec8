"""YAML from strangers: plain data of a strict subset, or an error with line and column.

The configurations of other tools are often YAML. Their text is taken as the events that the parser tells, and values are made of
these here: no tag is resolved, nothing is constructed. Anchors, aliases, tags, merges and several documents are refused, so that a text has
the size that it shows. Plain scalars mean what YAML 1.2 says: `yes` and `12:30` are text.
"""

from __future__ import annotations

import math
import re
from typing import Any, Final

import yaml  # noqa: TID251 - its events alone, see above

from qdx.exporter.errors import InvalidInput, quoted, visible
from qdx.exporter.limits import JSON_DEPTH, JSON_INT_LIMIT, YAML_EVENTS_LIMIT

__all__ = ["parse_yaml"]

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The parser in C where PyYAML has it, which is ten times as fast; only its events are used."""
_INTEGER: Final = re.compile(r"[-+]?[0-9]{1,20}", re.ASCII)
_FLOAT: Final = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]{1,4})?", re.ASCII
)
_WORDS: Final[dict[str, bool | None]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


def parse_yaml(text: str, *, source: str, error: type[InvalidInput]) -> dict[str, Any]:
    """Parses an untrusted YAML mapping, whose size the caller has limited.

    Args:
        text: The whole text.
        source: Name for messages, usually the path.
        error: Class of the error raised.

    Returns:
        Mappings with text as keys, lists, text, booleans, None, finite numbers.

    Raises:
        InvalidInput: Or the subclass given, with source, line and column.
    """
    builder = _Builder(source, error)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            builder.take(event)
    except yaml.YAMLError as bad:
        mark = getattr(bad, "problem_mark", None)
        words = visible(getattr(bad, "problem", None) or "not YAML")
        raise builder.fault(words, mark) from None
    except (ValueError, RecursionError) as bad:  # of characters that YAML does not have
        raise builder.fault(visible(bad), None) from None
    if not isinstance(builder.root, dict):
        raise error(f"{quoted(f'{source}:1:1')}: expected a mapping of keys and values")
    return builder.root


class _Builder:
    """Plain data of events, with everything that is open on a stack of its own."""

    def __init__(self, source: str, error: type[InvalidInput]) -> None:
        self.root: Any = None
        self._source = source
        self._error = error
        self._open: list[dict[str, Any] | list[Any]] = []
        self._keys: list[str | None] = []
        self._events = 0
        self._documents = 0

    def fault(self, words: str, mark: yaml.Mark | None) -> InvalidInput:
        """The error of a place."""
        line, column = (1, 1) if mark is None else (mark.line + 1, mark.column + 1)
        return self._error(f"{quoted(f'{self._source}:{line}:{column}')}: {words}")

    def take(self, event: yaml.Event) -> None:
        """Adds what one event tells."""
        self._events += 1
        if self._events > YAML_EVENTS_LIMIT:
            raise self.fault(f"more than {YAML_EVENTS_LIMIT} values", event.start_mark)
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise self.fault("a second document, expected one", event.start_mark)
        elif isinstance(event, yaml.AliasEvent):
            raise self.fault("an alias, expected the value itself", event.start_mark)
        elif isinstance(event, yaml.ScalarEvent):
            self._check_plain(event)
            self._add(self._scalar(event), event)
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            self._check_plain(event)
            self._begin({} if isinstance(event, yaml.MappingStartEvent) else [], event)
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            self._open.pop()
            self._keys.pop()

    def _check_plain(self, event: yaml.NodeEvent) -> None:
        if event.anchor is not None:
            raise self.fault("an anchor, expected plain values", event.start_mark)
        if getattr(event, "tag", None) not in {None, "!"}:
            raise self.fault(
                f"tag {quoted(event.tag)}, expected plain values: tags can name code",
                event.start_mark,
            )

    def _begin(self, value: dict[str, Any] | list[Any], event: yaml.NodeEvent) -> None:
        if len(self._open) >= JSON_DEPTH:
            raise self.fault(f"nested deeper than {JSON_DEPTH}", event.start_mark)
        self._add(value, event)
        self._open.append(value)
        self._keys.append(None)

    def _add(self, value: Any, event: yaml.NodeEvent) -> None:
        if not self._open:
            self.root = value
            return
        here = self._open[-1]
        if isinstance(here, list):
            here.append(value)
            return
        key = self._keys[-1]
        if key is not None:
            here[key] = value
            self._keys[-1] = None
            return
        if isinstance(event, yaml.ScalarEvent):
            key = str(event.value)
        else:
            raise self.fault("a key that is no text", event.start_mark)
        if key in here:
            raise self.fault(f"key {quoted(key)} appears twice, expected once", event.start_mark)
        self._keys[-1] = key

    def _scalar(self, event: yaml.ScalarEvent) -> Any:
        text = str(event.value)
        if "\x00" in text:
            raise self.fault("text holds a NUL character", event.start_mark)
        if event.style:  # quoted, or a block of lines
            return text
        if text in _WORDS:
            return _WORDS[text]
        if _INTEGER.fullmatch(text):
            number = int(text)
            if abs(number) >= JSON_INT_LIMIT:
                raise self.fault(f"integer {text}, expected less than 2**53", event.start_mark)
            return number
        if _FLOAT.fullmatch(text):
            value = float(text)
            if not math.isfinite(value):
                raise self.fault(f"number {quoted(text)} is out of range", event.start_mark)
            return value
        return text
