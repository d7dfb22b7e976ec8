"""Gates: a measured value against the bound that the plan carries."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from qdx.exporter.measure.metrics import Metric, finite_or_none

if TYPE_CHECKING:
    from qdx.verification.stored.report import StoredGate

__all__ = ["Gate", "Sense", "at_least", "at_most", "gate_of"]

Sense = Literal["at least", "at most"]


@dataclass(frozen=True)
class Gate:
    """One acceptance test and its outcome.

    Attributes:
        name: What was measured, such as `unet.sqnr_db` or `pipeline.ssim`.
        value: The measurement; None where there is none or where it is not a number.
        bound: The least or greatest value that is accepted.
        ok: Whether there is a finite value on the right side of the bound.
        note: Why there is no value, or what else a reader should know; may be empty.
        sense: Which side is the right one.
        calls: What it rests on: how many calls were compared, and how many the pipeline made; None for
            gates that rest on no calls.
    """

    name: str
    value: float | None
    bound: float
    ok: bool
    note: str = ""
    sense: Sense = "at least"
    calls: tuple[int, int] | None = None

    @classmethod
    def read(cls, stored: StoredGate) -> Gate:
        """A gate from a report's file."""
        calls = None if stored.calls is None else (stored.calls.compared, stored.calls.made)
        return cls(
            stored.name,
            stored.value,
            stored.bound,
            stored.ok,
            stored.note,
            stored.sense,
            calls,
        )

    @property
    def rests_on(self) -> str:
        """`12 of 20`; empty for gates that rest on no calls."""
        return "" if self.calls is None else f"{self.calls[0]} of {self.calls[1]}"

    def to_json(self) -> dict[str, Any]:
        """The gate as plain JSON data."""
        return {
            "name": self.name,
            "value": self.value,
            "bound": self.bound,
            "ok": self.ok,
            "note": self.note,
            "sense": self.sense,
            "calls": None
            if self.calls is None
            else {"compared": self.calls[0], "made": self.calls[1]},
        }

    def __str__(self) -> str:
        """`unet.sqnr_db: 48.13 on 12 of 20 calls, expected at least 50`."""
        found = "not measured" if self.value is None else f"{self.value:.6g}"
        reason = f" ({self.note})" if self.note else ""
        rest = f" on {self.rests_on} calls" if self.calls else ""
        return f"{self.name}: {found}{rest}{reason}, expected {self.sense} {self.bound:g}"


def at_least(name: str, value: float | None, bound: float, *, note: str = "") -> Gate:
    """A gate that passes only where a finite value reaches the bound.

    The comparison asks for what is good. Its opposite, "not below the bound", would let NaN pass.
    """
    found = finite_or_none(value)
    ok = found is not None and math.isfinite(bound) and found >= bound
    return Gate(name, found, bound, ok, note or _reason(value))


def at_most(name: str, value: float | None, bound: float, *, note: str = "") -> Gate:
    """A gate that passes only where a finite value does not exceed the bound."""
    found = finite_or_none(value)
    ok = found is not None and math.isfinite(bound) and found <= bound
    return Gate(name, found, bound, ok, note or _reason(value), "at most")


def _reason(value: float | None) -> str:
    """Why there is no value; empty if there is one."""
    if value is None:
        return "no measurement"
    return "" if math.isfinite(value) else "NaN, infinite, missing or of another shape"


def gate_of(
    metric: Metric, name: str, value: float | None, bound: float, *, note: str = ""
) -> Gate:
    """The gate of a metric's bound, on the side that its better end is not."""
    gate = at_least if metric.better == "more" else at_most
    return gate(f"{name}.{metric.name}", value, bound, note=note)
