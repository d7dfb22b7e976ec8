"""What came out of a search, and what it is held against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qdx.search.pareto import decibels

if TYPE_CHECKING:
    from qdx.search.pareto import Front
    from qdx.search.problem import Assignment
    from qdx.search.refit import Refitted
    from qdx.search.verdict import Verdict

__all__ = ["Control", "Result"]


@dataclass(frozen=True)
class Control:
    """Something that the search is held against.

    Attributes:
        name: `uniform` with the option's label, or `permuted`.
        average_bits: Bits of the file for each weight element.
        noise: Noises, measured where anything was, else of the model.
    """

    name: str
    average_bits: float
    noise: Mapping[str, float]


@dataclass(frozen=True)
class Result:
    """What came out.

    Attributes:
        assignment: The option of each part.
        predicted: Noises of the additive model.
        measured: Noises measured; None where nothing measures.
        additive: Measured noises of the plain integer program, for comparison; None likewise.
        refitted: How the refit went; None without one.
        front: Least noise by cost.
        controls: The best uniform option and permuted assignments.
        verdict: On the finished pictures; None where nobody asked for it.
    """

    assignment: Assignment
    predicted: Mapping[str, float]
    measured: Mapping[str, float] | None
    additive: Mapping[str, float] | None
    refitted: Refitted | None
    front: Front
    controls: tuple[Control, ...]
    verdict: Verdict | None = None

    def sqnr_db(self, name: str = "prediction") -> float:
        """Signal to noise: measured where it was, else predicted."""
        return decibels((self.predicted if self.measured is None else self.measured)[name])
