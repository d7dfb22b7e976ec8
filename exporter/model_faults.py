"""The words for faults of files that follow a model, such as plans and targets: what, where, what was expected."""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from qdx.exporter.errors import InvalidInput, quoted
from qdx.exporter.strict_model import StrictModel

__all__ = ["Document", "KeyPath", "choices", "dotted"]

KeyPath = tuple[str | int, ...]
"""Keys and indices from the root of a document."""

_FAULTS_SHOWN: Final = 10


@dataclass(frozen=True)
class Document:
    """Where data was read that should follow a model, for messages about it.

    Attributes:
        model: What it should follow.
        noun: What it is, as a message says: `the plan`.
        table: What its format calls a value with keys: `an object` of JSON, `a table` of TOML.
        source: Where it was read, usually the path.
        error: Class of the errors.
        positions: Finds the `line:column` of several paths; None where there is no text.
    """

    model: type[StrictModel]
    noun: str
    table: str
    source: str
    error: type[InvalidInput]
    positions: Callable[[Sequence[KeyPath]], list[str]] | None

    def check_sizes(self, root: object, *, items: int, keys: int) -> None:
        """Refuses long lists and objects before each of their items becomes a fault of its own.

        Raises:
            InvalidInput: Or the subclass given: a list has more than `items`, or an object more than `keys`.
        """
        pending: list[tuple[object, KeyPath]] = [(root, ())]
        while pending:
            value, path = pending.pop()
            most = items if isinstance(value, list) else keys
            inside, listed = _inside(value), isinstance(value, list)
            if len(inside) > most:
                size = f"is a list of {len(inside)}" if listed else f"has {len(inside)} keys"
                raise self.listing(
                    [(path, f"{self._subject(path)} {size}, expected at most {most}")]
                )
            pending.extend((item, (*path, key)) for key, item in inside.items())

    def malformed(self, bad: ValidationError, value: object) -> InvalidInput:
        """The error that names each fault of validation with its place."""
        # A list with a faulty item also counts as too short: only the item is of interest.
        every = bad.errors(include_url=False)
        faults = [fault for fault in every if not (fault["type"] == "too_short" and len(every) > 1)]
        shown, hint = [], None
        for fault in faults[:_FAULTS_SHOWN]:
            loc = _written(value, fault["loc"], missing=fault["type"] == "missing")
            shown.append((loc, self._words(fault, loc)))
            hint = hint or self._guess(fault, loc)
        return self.listing(shown, len(faults), hint)

    def listing(
        self, faults: Sequence[tuple[KeyPath, str]], count: int = 0, hint: str | None = None
    ) -> InvalidInput:
        """The error that names the first faults with their places, and how many of `count` are beyond."""
        shown = faults[:_FAULTS_SHOWN]
        if self.positions is None:
            lines = [f"{quoted(self.source)}: {words}" for _, words in shown]
        else:
            places = self.positions([path for path, _ in shown])
            pairs = zip(places, shown, strict=True)
            lines = [f"{quoted(f'{self.source}:{place}')}: {words}" for place, (_, words) in pairs]
        beyond = max(count, len(faults)) - len(shown)
        return self.error(
            "\n".join([*lines, *([f"and {beyond} more"] if beyond else [])]), hint=hint
        )

    def _words(self, fault: Any, loc: KeyPath) -> str:
        """One fault of pydantic in the words of qdx: what, got, expected."""
        context = fault.get("ctx", {})
        match fault["type"]:
            case "extra_forbidden":
                return f"unknown key {quoted(loc[-1])}, expected {choices(self._keys_at(loc[:-1]))}"
            case "missing":
                return f"key `{loc[-1]}` is missing in {self._subject(loc[:-1])}"
            case "value_error":  # of a validator of ours, which says all of it
                return f"{self._subject(loc)}: {context['error']}"
            case "literal_error":
                expected = context["expected"].replace("'", "`")
            case "string_pattern_mismatch":
                expected = f"text of the form {context['pattern']}"
            case "model_type" | "model_attributes_type" | "mapping_type" | "dict_type":
                expected = self.table
            case "tuple_type":
                expected = "a list"
            case "string_type":
                expected = "text"
            case "float_type":
                expected = "a number"
            case "too_short" | "too_long":
                least, most = context.get("min_length"), context.get("max_length")
                expected = f"at least {least}" if most is None else f"at most {most}"
            case _:
                # Pydantic's own words for bounds: "Input should be less than or equal to 1".
                expected = fault["msg"].removeprefix("Input should ").removeprefix("be ")
        return f"{self._subject(loc)} is {self._shown(fault['input'])}, expected {expected}"

    def _subject(self, loc: KeyPath) -> str:
        return quoted(dotted(loc)) if loc else self.noun

    def _shown(self, value: object) -> str:
        if isinstance(value, dict):
            return self.table
        if isinstance(value, list | tuple):
            return f"a list of {len(value)}"
        if value is None or isinstance(value, bool):
            return f"`{str(value).replace('None', 'null').lower()}`"
        return quoted(value)

    def _keys_at(self, loc: KeyPath) -> tuple[str, ...]:
        """The keys that the model knows at a path."""
        here: Any = self.model
        for part in loc:
            # A list counts as what is in it.
            here = here if isinstance(part, int) else _below(here, part)
        return tuple(here.known_keys())

    def _guess(self, fault: Any, loc: KeyPath) -> str | None:
        """What a mistyped key or choice was meant to be."""
        if fault["type"] == "extra_forbidden":
            near = difflib.get_close_matches(str(loc[-1]), self._keys_at(loc[:-1]), n=1)
            return f"did you mean `{near[0]}`?" if near else "what qdx does not read, it refuses"
        if fault["type"] == "literal_error" and isinstance(fault["input"], str):
            known = re.findall(r"'([^']*)'", fault["ctx"]["expected"])
            near = difflib.get_close_matches(fault["input"], known, n=1)
            return f"did you mean `{near[0]}`?" if near else None
        return None


def dotted(path: KeyPath) -> str:
    """Returns a path of keys and indices as people write it, such as `rules[0].weights.dtype`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def choices(names: Sequence[str]) -> str:
    """Returns names as alternatives: `a`, `b` or `c`."""
    quoted_names = [quoted(name) for name in names]
    return " or ".join(filter(None, [", ".join(quoted_names[:-1]), quoted_names[-1]]))


def _inside(value: object) -> dict[Any, Any]:
    """The members of an object or the items of a list, by key or index."""
    if isinstance(value, dict):
        return value
    return dict(enumerate(value)) if isinstance(value, list) else {}


def _written(value: Any, loc: KeyPath, *, missing: bool) -> KeyPath:
    """The part of a path that the text has: one glob may stand where the models have a list."""
    for depth, part in enumerate(loc):
        if missing and depth == len(loc) - 1:
            break
        inside = _inside(value)
        if part not in inside:
            return loc[:depth]
        value = inside[part]
    return loc


def _below(annotation: Any, part: str) -> Any:
    """What a model, or a table of them, has under a key: the model, or the table of models."""
    if isinstance(annotation, type) and issubclass(annotation, StrictModel):
        fields = annotation.model_fields.items()
        return _models(
            next(field.annotation for name, field in fields if part in {name, field.alias})
        )
    return _models(typing.get_args(annotation)[-1] if _is_table(annotation) else annotation)


def _models(annotation: Any) -> Any:
    """The model inside `Model`, `tuple[Model, ...]` or `Model | None`; a table of models as it is."""
    if _is_table(annotation) or (
        isinstance(annotation, type) and issubclass(annotation, StrictModel)
    ):
        return annotation
    return next(_models(a) for a in typing.get_args(annotation) if a not in {type(None), ...})


def _is_table(annotation: Any) -> bool:
    origin = typing.get_origin(annotation)
    return isinstance(origin, type) and issubclass(origin, Mapping)
