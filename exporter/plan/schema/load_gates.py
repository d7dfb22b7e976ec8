"""Reading a file that holds the acceptance test alone: the `gates` object of a plan."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from qdx.exporter.errors import InvalidPlan
from qdx.exporter.files import parse_json, read_text
from qdx.exporter.limits import PLAN_LIMIT_BYTES
from qdx.exporter.model_faults import Document
from qdx.exporter.plan.schema.gates import AskedGates
from qdx.exporter.plan.schema.messages import KEYS_LIMIT, with_gates_hint
from qdx.exporter.strict_json import positions_of

__all__ = ["load_gates", "parse_gates"]

_ITEMS_LIMIT: Final = 1
"""No key of the gates takes a list."""


def load_gates(path: str | Path) -> AskedGates:
    """Reads a file of gates.

    Args:
        path: A JSON file with what a plan has under `gates`.

    Raises:
        InvalidPlan: There is no such file, or its content is no such object; with line and column.
        StorageError: Reading failed.
    """
    try:
        text = read_text(path, PLAN_LIMIT_BYTES, error=InvalidPlan)
    except InvalidPlan as bad:
        if bad.hint is not None:
            raise
        raise InvalidPlan(
            bad.message,
            hint='give a JSON file with what a plan has under `gates`, such as `{"pipeline": {"ssim_min": 0.9}}`',
        ) from bad
    return parse_gates(text, source=str(path))


def parse_gates(text: str, *, source: str) -> AskedGates:
    """Reads gates from JSON text; `source` names it in messages; raises as `load_gates`."""
    value = parse_json(text, source=source, error=InvalidPlan)
    here = Document(
        AskedGates, "the file", "an object", source, InvalidPlan, partial(positions_of, text)
    )
    if "gates" in value or "rules" in value:
        raise InvalidPlan(
            here.listing([((), "is a plan, expected what a plan has under `gates`")]).message,
            hint="give a whole plan with --plan",
        )
    here.check_sizes(value, items=_ITEMS_LIMIT, keys=KEYS_LIMIT)
    try:
        return AskedGates.model_validate_json(text)
    except ValidationError as bad:
        raise with_gates_hint(here.malformed(bad, value), bad) from None
