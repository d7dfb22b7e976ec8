"""What measures for a search."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from qdx.exporter.plan import Plan
    from qdx.search.by_call import NoiseByCall
    from qdx.search.by_slopes import Slopes
    from qdx.search.divided import Divide
    from qdx.search.interactions import ErrorsOf
    from qdx.search.ledger import Measure
    from qdx.search.problem import Assignment
    from qdx.search.solve import Objective
    from qdx.verification.judge.gates import Gate

__all__ = ["BASE", "FOUND", "NO_TOOLS", "TakeMs", "Tools"]

TakeMs = Callable[[Mapping[str, "Assignment"]], Mapping[str, float]]
FOUND: Final = "this plan"
BASE: Final = "what it began from"


@dataclass(frozen=True)
class Tools:
    """What measures for a search; without any, it goes by the analysis alone.

    Attributes:
        measure: Measures assignments of the analysis' groups whole.
        errors_of: Errors of single choices; None where the analysis kept none.
        gates_of: Exports a plan, verifies it and returns its gates; None where nothing makes pictures.
        by_call: Noise of single options by call; None where the analysis kept none.
        slopes: Returns what tells slopes of an objective; None where nothing does.
        divide: Divides the schedule; None where inputs are the same at all timesteps.
        kept: Folder that keeps what was measured; None keeps nothing.
        take_ms: Measures in turns what assignments take in the target's runtime, by name; beside them it tells `float` and what
            the search began from. None where that does not run here, or the analysis has no such times.
    """

    measure: Measure | None = None
    errors_of: ErrorsOf | None = None
    gates_of: Callable[[Plan], Sequence[Gate]] | None = None
    by_call: NoiseByCall | None = None
    slopes: Callable[[Objective], Slopes] | None = None
    divide: Divide | None = None
    kept: Path | None = None
    take_ms: TakeMs | None = None


NO_TOOLS: Final = Tools()
