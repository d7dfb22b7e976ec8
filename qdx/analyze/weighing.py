"""How steps of a schedule count. Imports no torch."""

from __future__ import annotations

from typing import Final, get_args

from qdx.exporter.errors import UsageError, quoted
from qdx.exporter.plan.schema.found import Weighing

__all__ = ["WEIGHINGS", "Weighing", "read_weighing"]

WEIGHINGS: Final[tuple[Weighing, ...]] = get_args(Weighing)


def read_weighing(text: str) -> Weighing:
    """Reads `--weigh`.

    Raises:
        UsageError: It is not of `WEIGHINGS`.
    """
    for one in WEIGHINGS:
        if text == one:
            return one
    raise UsageError(f"--weigh: got {quoted(text)}", hint=f"expected {' or '.join(WEIGHINGS)}")
