"""Reading plans: presets and files, with the place of every fault."""

from __future__ import annotations

import difflib
import typing
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from qdx.exporter.errors import InvalidPlan, quoted
from qdx.exporter.files import dump_json, parse_json, position_of, read_text
from qdx.exporter.limits import PLAN_LIMIT_BYTES
from qdx.exporter.plan.schema import SCHEMA, Plan, dotted

__all__ = ["list_presets", "load_plan", "parse_plan", "plan_from_json"]

_PRESETS: Final = Path(__file__).parent / "presets"
_FAULTS_SHOWN: Final = 10


def list_presets() -> tuple[str, ...]:
    """Returns the names of the plans that come with qdx, sorted."""
    return tuple(sorted(path.stem for path in _PRESETS.glob("*.json")))


def load_plan(name_or_path: str | Path) -> Plan:
    """Reads a plan.

    Args:
        name_or_path: The name of a preset such as `float16`, or a JSON file.

    Raises:
        InvalidPlan: No such preset or file, or its content is not a plan; with line and column.
        StorageError: Reading failed.
    """
    presets = list_presets()
    if isinstance(name_or_path, str) and name_or_path in presets:
        path = _PRESETS / f"{name_or_path}.json"
        # Installers may link files of a package into place.
        text = read_text(path, PLAN_LIMIT_BYTES, error=InvalidPlan, allow_hard_links=True)
        return parse_plan(text, source=path.name)
    path = Path(name_or_path)
    if isinstance(name_or_path, str) and path.name == name_or_path and not path.exists():
        guess = difflib.get_close_matches(name_or_path, presets, n=1)
        raise InvalidPlan(
            f"{quoted(name_or_path)}: neither a preset nor a file; the presets are {_or(presets)}",
            hint=f"did you mean `{guess[0]}`?"
            if guess
            else "a plan is a JSON file; "
            f"the presets are plans to start from, see `qdx plan check {presets[0]} --json`",
        )
    text = read_text(path, PLAN_LIMIT_BYTES, error=InvalidPlan)
    return parse_plan(text, source=str(path))


def parse_plan(text: str, *, source: str) -> Plan:
    """Reads a plan from JSON text; `source` names it in messages.

    Raises:
        InvalidPlan: The text is not strict JSON or not a plan; with line and column.
    """
    value = parse_json(text, source=source, error=InvalidPlan)
    schema = value.get("schema")
    if schema != SCHEMA:
        where = quoted(f"{source}:{position_of(text, ('schema',))}")
        found = quoted(schema) if isinstance(schema, str) else "missing"
        raise InvalidPlan(
            f"{where}: `schema` is {found}, expected `{SCHEMA}`",
            hint="a plan names its format"
            if not isinstance(schema, str)
            else "plans of another version are not read; `qdx --version` tells yours",
        )
    try:
        # JSON mode: in strict Python mode a list would not be accepted as a tuple.
        plan = Plan.model_validate_json(text)
    except ValidationError as bad:
        raise _invalid(bad, text, source) from None
    plan._source, plan._text = source, text  # noqa: SLF001 - where it was read, for messages
    return plan


def plan_from_json(value: dict[str, Any], *, source: str) -> Plan:
    """Reads a plan from JSON data, such as the copy in a bundle's manifest; raises as parse_plan."""
    return parse_plan(dump_json(value).decode(), source=source)


def _invalid(bad: ValidationError, text: str, source: str) -> InvalidPlan:
    """The error that names each fault with its place."""
    # A list with a faulty item also counts as too short: only the item is of interest.
    every = bad.errors(include_url=False)
    faults = [fault for fault in every if not (fault["type"] == "too_short" and len(every) > 1)]
    lines = []
    hint = None
    for fault in faults[:_FAULTS_SHOWN]:
        where = quoted(f"{source}:{position_of(text, fault['loc'])}")
        lines.append(f"{where}: {_words(fault)}")
        if hint is None and fault["type"] == "extra_forbidden":
            hint = _guess(fault["loc"])
    if len(faults) > _FAULTS_SHOWN:
        lines.append(f"and {len(faults) - _FAULTS_SHOWN} more")
    return InvalidPlan("\n".join(lines), hint=hint)


def _words(fault: Any) -> str:
    """One fault of pydantic in the words of qdx: what, got, expected."""
    loc = fault["loc"]
    context = fault.get("ctx", {})
    match fault["type"]:
        case "extra_forbidden":
            return f"unknown key {quoted(loc[-1])}, expected {_or(_keys_at(loc[:-1]))}"
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


def _subject(loc: tuple[str | int, ...]) -> str:
    return quoted(dotted(loc)) if loc else "the plan"


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if value is None or isinstance(value, bool):
        return f"`{str(value).replace('None', 'null').lower()}`"
    return quoted(value)


def _keys_at(loc: tuple[str | int, ...]) -> tuple[str, ...]:
    """The keys that the schema knows at a path."""
    model: type[BaseModel] = Plan
    for part in loc:
        if isinstance(part, int):
            continue
        field = next(f for n, f in model.model_fields.items() if part in {n, f.alias})
        model = _model_in(field.annotation)
    return tuple(field.alias or name for name, field in model.model_fields.items())


def _model_in(annotation: Any) -> type[BaseModel]:
    """The model inside `Model`, `tuple[Model, ...]` or `Model | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(_model_in(a) for a in typing.get_args(annotation) if a not in {type(None), ...})


def _guess(loc: tuple[str | int, ...]) -> str:
    near = difflib.get_close_matches(str(loc[-1]), _keys_at(loc[:-1]), n=1)
    if near:
        return f"did you mean `{near[0]}`?"
    return "this version of qdx reads float weights only; what it does not read, it refuses"


def _or(names: tuple[str, ...]) -> str:
    quoted_names = [f"`{name}`" for name in names]
    return " or ".join(filter(None, [", ".join(quoted_names[:-1]), quoted_names[-1]]))
