"""How steps of a schedule count. Imports no torch."""

from __future__ import annotations

from typing import Final, Literal, get_args

from qdx.exporter.errors import UsageError, quoted

__all__ = ["WEIGHINGS", "Weighing", "read_weighing"]

Weighing = Literal["steps", "trajectory"]
WEIGHINGS: Final[tuple[Weighing, ...]] = get_args(Weighing)
"""`steps`: every step of the schedule counts alike. `trajectory`: by the part of the final error that it makes."""


def read_weighing(text: str) -> Weighing:
    """Reads `--weigh`.

    Raises:
        UsageError: It is not of `WEIGHINGS`.
    """
    for one in WEIGHINGS:
        if text == one:
            return one
    raise UsageError(f"--weigh: got {quoted(text)}", hint=f"expected {' or '.join(WEIGHINGS)}")
