"""The words for faults of plans: what, where, what was expected."""

from __future__ import annotations

from typing import Final

from qdx.exporter.errors import InvalidInput, InvalidPlan
from qdx.exporter.model_faults import Document
from qdx.exporter.plan.schema.fault import Fault
from qdx.exporter.plan.schema.plan import Plan
from qdx.exporter.strict_json import positions_of

__all__ = ["KEYS_LIMIT", "contradictory", "document"]

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
