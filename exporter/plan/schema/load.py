"""Reading plans: presets and files, with the place of every fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from qdx.exporter.errors import InvalidPlan, quoted
from qdx.exporter.files import dump_json, parse_json, position_of, read_text
from qdx.exporter.limits import PLAN_LIMIT_BYTES
from qdx.exporter.model_faults import choices
from qdx.exporter.plan.schema.consistency import contradictions
from qdx.exporter.plan.schema.messages import KEYS_LIMIT, contradictory, document, with_gates_hint
from qdx.exporter.plan.schema.near_presets import near_preset
from qdx.exporter.plan.schema.plan import RULES_LIMIT, SCHEMA, Plan
from qdx.exporter.plan.schema.vocabulary import unknown_names

__all__ = ["list_presets", "load_plan", "parse_plan", "plan_from_json", "preset_text"]

_PRESETS: Final = Path(__file__).parents[1] / "presets"


def list_presets() -> tuple[str, ...]:
    """Returns the names of the plans that come with qdx, sorted."""
    return tuple(sorted(path.stem for path in _PRESETS.glob("*.json")))


def preset_text(name: str) -> str:
    """Returns the JSON text of a preset.

    Raises:
        InvalidPlan: There is no preset of that name.
    """
    presets = list_presets()
    if name not in presets:
        raise InvalidPlan(
            f"{quoted(name)}: not a preset; the presets are {choices(presets)}",
            hint=near_preset(name, presets) or "`qdx plan new -o FILE` writes the preset w8a8",
        )
    # Installers may link files of a package into place.
    path = _PRESETS / f"{name}.json"
    return read_text(path, PLAN_LIMIT_BYTES, error=InvalidPlan, allow_hard_links=True)


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
        return parse_plan(preset_text(name_or_path), source=f"{name_or_path}.json")
    path = Path(name_or_path)
    if isinstance(name_or_path, str) and path.name == name_or_path and not path.exists():
        raise InvalidPlan(
            f"{quoted(name_or_path)}: neither a preset nor a file; the presets are {choices(presets)}",
            hint=near_preset(name_or_path, presets)
            or "a plan is a JSON file; `qdx plan new -o FILE` writes one to start from",
        )
    text = read_text(path, PLAN_LIMIT_BYTES, error=InvalidPlan)
    return parse_plan(text, source=str(path))


def parse_plan(text: str, *, source: str) -> Plan:
    """Reads a plan from JSON text; `source` names it in messages.

    Raises:
        InvalidPlan: The text is not strict JSON or not a plan, or selects by a name that nothing has; with line and column.
    """
    plan = _parsed(text, source)
    faults = unknown_names(plan)
    if faults:
        raise contradictory(plan, faults)
    return plan


def _parsed(text: str, source: str) -> Plan:
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
    here = document(text, source)
    here.check_sizes(value, items=RULES_LIMIT, keys=KEYS_LIMIT)
    try:
        # JSON mode: in strict Python mode a list would not be accepted as a tuple.
        plan = Plan.model_validate_json(text)
    except ValidationError as bad:
        raise with_gates_hint(here.malformed(bad, value), bad, key=("gates",)) from None
    plan._source, plan._text = source, text  # noqa: SLF001 - where it was read, for messages
    faults = contradictions(plan)
    if faults:
        raise contradictory(plan, faults)
    return plan


def plan_from_json(value: dict[str, Any], *, source: str) -> Plan:
    """Reads a plan from JSON data, such as the copy in a bundle's manifest; raises as parse_plan.

    A name that nothing has is taken here: what a rule of a finished bundle selected is known.
    """
    return _parsed(dump_json(value).decode(), source)
