"""The words for faults of plans: what, where, what was expected."""

from __future__ import annotations

from typing import Final

from pydantic import ValidationError

from qdx.exporter.errors import InvalidInput, InvalidPlan
from qdx.exporter.model_faults import Document, KeyPath
from qdx.exporter.plan.schema.fault import Fault
from qdx.exporter.plan.schema.plan import Plan
from qdx.exporter.strict_json import positions_of

__all__ = ["KEYS_LIMIT", "contradictory", "document", "with_gates_hint"]

KEYS_LIMIT: Final = 32
"""No object of the schema has more than a dozen keys."""


def document(text: str, source: str) -> Document:
    """A plan's text and where it was read, for messages about it."""
    return Document(
        Plan, "the plan", "an object", source, InvalidPlan, lambda paths: positions_of(text, paths)
    )


def contradictory(plan: Plan, faults: tuple[Fault, ...]) -> InvalidInput:
    """The error that names each contradiction with its place, and the way out of the first."""
    here = document(plan._text, plan._source)  # noqa: SLF001
    return here.listing([(fault.path, fault.words) for fault in faults], hint=faults[0].hint)


def with_gates_hint(
    error: InvalidInput, bad: ValidationError, *, key: KeyPath = ()
) -> InvalidInput:
    """The error, with an example of gates where these are at fault and nothing else is proposed.

    Args:
        error: In our words.
        bad: What the models found.
        key: Where the gates stand in the text; nothing where the text is the gates alone.
    """
    places = [fault["loc"] for fault in bad.errors()]
    at_fault = any(one[: len(key)] == key and len(one) <= len(key) + 1 for one in places)
    if error.hint is not None or not at_fault:
        return error
    name = "".join(f'"{part}": ' for part in key)
    return InvalidPlan(
        error.message,
        hint=f'gates may be as short as `{name}{{"pipeline": {{"ssim_min": 0.9}}}}`; what is left out has defaults, all of '
        f"them with `{name}{{}}`",
    )
