"""The words for faults of plans: what, where, what was expected."""

from __future__ import annotations

import difflib
import re
import typing
from typing import Any, Final

from pydantic import ValidationError

from qdx.exporter.errors import InvalidPlan, quoted
from qdx.exporter.plan.schema.fault import Fault, KeyPath
from qdx.exporter.plan.schema.model import PlanModel
from qdx.exporter.plan.schema.plan import RULES_LIMIT, Plan, dotted
from qdx.exporter.strict_json import positions_of

__all__ = ["check_sizes", "choices", "contradictory", "malformed"]

_FAULTS_SHOWN: Final = 10
# No object of the schema has more than a dozen keys.
_KEYS_LIMIT: Final = 32


def check_sizes(root: dict[str, Any], text: str, source: str) -> None:
    """Refuses long lists and objects before each of their items becomes a fault of its own."""
    pending: list[tuple[object, KeyPath]] = [(root, ())]
    while pending:
        value, path = pending.pop()
        most = RULES_LIMIT if isinstance(value, list) else _KEYS_LIMIT
        items = value if isinstance(value, dict) else dict(enumerate(_items(value)))
        if len(items) > most:
            words = f"{_subject(path)} {_size(value)}, expected at most {most}"
            raise _listing([(path, words)], 1, text, source, None)
        pending.extend((item, (*path, key)) for key, item in items.items())


def _items(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _size(value: Any) -> str:
    return f"is a list of {len(value)}" if isinstance(value, list) else f"has {len(value)} keys"


def contradictory(plan: Plan, faults: tuple[Fault, ...]) -> InvalidPlan:
    """The error that names each contradiction with its place, and the way out of the first."""
    shown = [(fault.path, fault.words) for fault in faults[:_FAULTS_SHOWN]]
    return _listing(shown, len(faults), plan._text, plan._source, faults[0].hint)  # noqa: SLF001


def malformed(bad: ValidationError, value: object, text: str, source: str) -> InvalidPlan:
    """The error that names each fault with its place."""
    # A list with a faulty item also counts as too short: only the item is of interest.
    every = bad.errors(include_url=False)
    faults = [fault for fault in every if not (fault["type"] == "too_short" and len(every) > 1)]
    shown, hint = [], None
    for fault in faults[:_FAULTS_SHOWN]:
        loc = _written(value, fault["loc"], missing=fault["type"] == "missing")
        shown.append((loc, _words(fault, loc)))
        hint = hint or _guess(fault, loc)
    return _listing(shown, len(faults), text, source, hint)


def _listing(
    shown: list[tuple[KeyPath, str]], count: int, text: str, source: str, hint: str | None
) -> InvalidPlan:
    """The error that names the first faults with their places, and how many there are beyond."""
    places = positions_of(text, [path for path, _ in shown])
    lines = [
        f"{quoted(f'{source}:{place}')}: {words}"
        for place, (_, words) in zip(places, shown, strict=True)
    ]
    if count > len(shown):
        lines.append(f"and {count - len(shown)} more")
    return InvalidPlan("\n".join(lines), hint=hint)


def _written(value: Any, loc: KeyPath, *, missing: bool) -> KeyPath:
    """The part of a path that the text has: one glob may stand where the models have a list."""
    for depth, part in enumerate(loc):
        if missing and depth == len(loc) - 1:
            break
        inside = value if isinstance(value, dict) else dict(enumerate(_items(value)))
        if part not in inside:
            return loc[:depth]
        value = inside[part]
    return loc


def _words(fault: Any, loc: KeyPath) -> str:
    """One fault of pydantic in the words of qdx: what, got, expected."""
    context = fault.get("ctx", {})
    match fault["type"]:
        case "extra_forbidden":
            return f"unknown key {quoted(loc[-1])}, expected {choices(_keys_at(loc[:-1]))}"
        case "missing":
            return f"key `{loc[-1]}` is missing in {_subject(loc[:-1])}"
        case "literal_error":
            expected = context["expected"].replace("'", "`")
        case "string_pattern_mismatch":
            expected = f"text of the form {context['pattern']}"
        case "model_type" | "model_attributes_type":
            expected = "an object"
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
    return f"{_subject(loc)} is {_shown(fault['input'])}, expected {expected}"


def _subject(loc: KeyPath) -> str:
    return quoted(dotted(loc)) if loc else "the plan"


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if value is None or isinstance(value, bool):
        return f"`{str(value).replace('None', 'null').lower()}`"
    return quoted(value)


def _keys_at(loc: KeyPath) -> tuple[str, ...]:
    """The keys that the schema knows at a path."""
    model: type[PlanModel] = Plan
    for part in loc:
        if isinstance(part, int):
            continue
        field = next(f for n, f in model.model_fields.items() if part in {n, f.alias})
        model = _model_in(field.annotation)
    return model.known_keys()


def _model_in(annotation: Any) -> type[PlanModel]:
    """The model inside `Model`, `tuple[Model, ...]` or `Model | None`."""
    if isinstance(annotation, type) and issubclass(annotation, PlanModel):
        return annotation
    return next(_model_in(a) for a in typing.get_args(annotation) if a not in {type(None), ...})


def _guess(fault: Any, loc: KeyPath) -> str | None:
    """What a mistyped key or choice was meant to be."""
    if fault["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(loc[-1]), _keys_at(loc[:-1]), n=1)
        return f"did you mean `{near[0]}`?" if near else "what qdx does not read, it refuses"
    if fault["type"] == "literal_error" and isinstance(fault["input"], str):
        choices = re.findall(r"'([^']*)'", fault["ctx"]["expected"])
        near = difflib.get_close_matches(fault["input"], choices, n=1)
        return f"did you mean `{near[0]}`?" if near else None
    return None


def choices(names: tuple[str, ...]) -> str:
    """Returns names as alternatives: `a`, `b` or `c`."""
    quoted_names = [f"`{name}`" for name in names]
    return " or ".join(filter(None, [", ".join(quoted_names[:-1]), quoted_names[-1]]))
