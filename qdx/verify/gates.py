"""Gates: a measured value against the bound that the plan carries."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

__all__ = ["Gate", "at_least"]


@dataclass(frozen=True)
class Gate:
    """One acceptance test and its outcome.

    Attributes:
        name: What was measured, such as `unet.sqnr_db` or `pipeline.ssim`.
        value: The measurement; None where there is none or where it is not a number.
        bound: The least value that is accepted.
        ok: Whether there is a finite value that reaches the bound.
        note: Why there is no value, or what else a reader should know; may be empty.
    """

    name: str
    value: float | None
    bound: float
    ok: bool
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """The gate as plain JSON data."""
        return {
            "name": self.name,
            "value": self.value,
            "bound": self.bound,
            "ok": self.ok,
            "note": self.note,
        }

    def __str__(self) -> str:
        """`unet.sqnr_db: 48.13, expected at least 50`."""
        found = "not measured" if self.value is None else f"{self.value:.6g}"
        reason = f" ({self.note})" if self.note else ""
        return f"{self.name}: {found}{reason}, expected at least {self.bound:g}"


def at_least(name: str, value: float | None, bound: float, *, note: str = "") -> Gate:
    """A gate that passes only where a finite value reaches the bound.

    The comparison asks for what is good. Its opposite, "not below the bound", would let NaN pass.
    """
    found = value if value is not None and math.isfinite(value) else None
    ok = found is not None and math.isfinite(bound) and found >= bound
    if found is None and not note:
        note = "no measurement" if value is None else "NaN, infinite, missing or of another shape"
    return Gate(name, found, bound, ok, note)
