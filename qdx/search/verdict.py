"""What verification makes of an assignment that was exported: its gates, each held or not. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from qdx.exporter.plan.schema.found import JudgedGate
from qdx.search.problem import Assignment

__all__ = ["GateResult", "Judge", "Verdict"]


@dataclass(frozen=True)
class GateResult:
    """One gate.

    Attributes:
        name: As verification names it.
        value: What was measured.
        bound: The least or greatest value that is accepted.
        sense: Which of both.
    """

    name: str
    value: float
    bound: float
    sense: Literal["at least", "at most"]

    @property
    def in_db(self) -> bool:
        """Whether it is of signal to noise."""
        return self.name.endswith("_db")

    def held(self, margin: float = 0.0) -> bool:
        """Whether the value is on the right side of the bound, by a margin; no number is on neither."""
        if self.sense == "at least":
            return self.value >= self.bound + margin
        return self.value <= self.bound - margin

    @property
    def margin(self) -> float:
        """How far the value is on the right side of the bound; below zero on the wrong one."""
        return self.value - self.bound if self.sense == "at least" else self.bound - self.value

    def told(self) -> JudgedGate:
        """As the plan that was found says it."""
        return JudgedGate(
            name=self.name,
            value=round(self.value, 6),
            bound=self.bound,
            sense=self.sense,
            margin=round(self.margin, 6),
        )

    def __str__(self) -> str:
        """`unet.sqnr_db 24.1 (at least 25)`."""
        return f"{self.name} {self.value:.6g} ({self.sense} {self.bound:g})"


@dataclass(frozen=True)
class Verdict:
    """All gates of one assignment.

    Attributes:
        gates: In the order of verification.
        psnr_db: Of the finished pictures; None where none were compared.
        margin_db: How far inside gates in decibels are to be held.
    """

    gates: tuple[GateResult, ...]
    psnr_db: float | None = None
    margin_db: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether every gate is held. No gates, nothing proved: that is none."""
        return bool(self.gates) and not self.failed

    @property
    def failed(self) -> tuple[GateResult, ...]:
        """The gates that are not held, or not with the margin."""
        return tuple(one for one in self.gates if not one.held(self._margin_of(one)))

    @property
    def slack_db(self) -> float:
        """How far inside the nearest of the gates in decibels is held, the margin taken off; 0 without such."""
        return min((one.margin - self.margin_db for one in self.gates if one.in_db), default=0.0)

    def margin_words(self, gate: GateResult) -> str:
        """What else than its bound a gate is held against."""
        margin = self._margin_of(gate)
        return f" and {margin:g} dB of margin" if margin else ""

    def _margin_of(self, gate: GateResult) -> float:
        return self.margin_db if gate.in_db else 0.0

    def to_json(self) -> dict[str, Any]:
        """It as plain JSON data."""
        return {
            "psnr_db": self.psnr_db,
            "margin_db": self.margin_db,
            "gates": [
                {"name": one.name, "value": one.value, "bound": one.bound, "sense": one.sense}
                for one in self.gates
            ],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Verdict:
        """It from such data."""
        gates = tuple(
            GateResult(one["name"], one["value"], one["bound"], one["sense"])
            for one in data["gates"]
        )
        return cls(gates, data["psnr_db"], data["margin_db"])


Judge = Callable[[Assignment], Verdict]
"""Exports an assignment and verifies it.

Raises:
    TargetRefusal: A gate cannot be judged.
"""
