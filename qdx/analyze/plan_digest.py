"""What an analysis depends on in the plan that it is upon."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from qdx.exporter.strict_json import dump_json

if TYPE_CHECKING:
    from qdx.exporter.plan.schema.plan import Plan

__all__ = ["plan_digest"]

_ALL_THE_SAME: Final = ("gates", "found", "description")


def plan_digest(plan: Plan) -> str:
    """Returns the SHA-256 of a plan without its gates and words: whoever changes these need not analyze again."""
    data = {key: value for key, value in plan.to_json().items() if key not in _ALL_THE_SAME}
    return hashlib.sha256(dump_json(data)).hexdigest()
