"""How much worse than an earlier verification is accepted; nothing heavy is imported."""

from __future__ import annotations

import math
from typing import Final

from qdx.exporter.errors import UsageError

__all__ = ["DROP_DB", "accepted_drop_db"]

DROP_DB: Final = 1.0
"""A quarter more error energy: less is what other kernels, thread counts and re-exports make of the same plan."""
_LIMIT_DB: Final = 100.0


def accepted_drop_db(drop_db: float | None, *, is_held: bool) -> float:
    """The decibels that a measure may lose.

    Args:
        drop_db: As the user says; None for `DROP_DB`.
        is_held: Whether there is an earlier report.

    Raises:
        UsageError: The decibels are none, not more than zero, or given without an earlier report.
    """
    if drop_db is None:
        return DROP_DB
    if not is_held:
        raise UsageError(
            "--baseline-drop-db is given without --baseline: nothing is compared",
            hint="add --baseline and an earlier report, or leave the decibels out",
        )
    if not math.isfinite(drop_db) or not 0 < drop_db <= _LIMIT_DB:
        raise UsageError(
            f"--baseline-drop-db: {drop_db:g}, expected more than 0 and at most {_LIMIT_DB:g}",
            hint=f"leave it out for {DROP_DB:g} dB",
        )
    return drop_db
