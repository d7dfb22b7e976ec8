"""The rungs of the ladder: from float PyTorch over the quantized graph to the runtime, one change at a time.

Each rung is measured against float PyTorch and against the rung before, so that the error of quantization and
that of lowering are separate numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from torch import Tensor

from qdx.exporter.measure import metrics
from qdx.verification.measure.selection import evenly_spaced

__all__ = [
    "ARTIFACT",
    "QUANTIZED",
    "UNOPTIMIZED",
    "Answer",
    "Rung",
    "RungResult",
    "by_rung",
    "climb",
    "previous_sqnrs_db",
    "rungs_to_json",
    "sqnr_of",
]

QUANTIZED: Final = "quantized"
"""The quantized graph in PyTorch, which is what the runtime should compute."""
UNOPTIMIZED: Final = "unoptimized"
"""The artifact in its runtime, with the runtime's own optimizations off."""
ARTIFACT: Final = "artifact"
"""The artifact in its runtime, as it is shipped."""

Run = Callable[[dict[str, Tensor]], Mapping[str, Tensor]]
Answer = tuple[str, Mapping[str, Tensor] | None, str]
"""Of a rung to a call: its name, its outputs and its error. A rung that failed has no outputs; None stands for those of
one that does not compute the call."""


def _nothing() -> None:
    """For rungs that need nothing beforehand, or are used by others as well."""


@dataclass(frozen=True)
class Rung:
    """One way to compute a method.

    Attributes:
        name: `quantized`, `unoptimized` or `artifact`.
        run: Tensors by argument in, tensors by field out.
        open: Takes what the runs need, before the first.
        close: Gives it back, behind the last.
        fresh: Computes anew, where `run` may remember; None where `run` itself does.
        most: How many of the calls it computes, evenly spaced from the first on; None for all.
    """

    name: str
    run: Run
    open: Callable[[], None] = _nothing
    close: Callable[[], None] = _nothing
    fresh: Run | None = None
    most: int | None = None

    def positions(self, count: int) -> tuple[int, ...]:
        """Which of so many calls it computes."""
        return evenly_spaced(count, count if self.most is None else self.most)


@dataclass(frozen=True)
class RungResult:
    """One call on one rung.

    Attributes:
        name: Of the rung.
        float_sqnr_db: Against float PyTorch, the least over the outputs; NaN for bad data.
        previous_sqnr_db: Against the rung before, likewise; None where that did not compute this call.
        quantized_sqnr_db: Against the quantized graph in PyTorch, likewise: the error of lowering alone.
            None on that rung itself, where there is none, and where it did not compute this call.
        error: What went wrong, in words; empty otherwise.
    """

    name: str
    float_sqnr_db: float
    previous_sqnr_db: float | None
    quantized_sqnr_db: float | None = None
    error: str = ""


def sqnr_of(reference: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> float:
    """The least SQNR over the outputs of a reference, in decibels; NaN where one is missing."""
    return metrics.worst_of(
        metrics.sqnr_db(tensor, outputs[name]) if name in outputs else math.nan
        for name, tensor in reference.items()
    )


def climb(reference: Mapping[str, Tensor], answers: Sequence[Answer]) -> tuple[RungResult, ...]:
    """Measures what the rungs answered to one call.

    Args:
        reference: What float PyTorch answered.
        answers: Of each rung in order.
    """
    results = []
    previous: Mapping[str, Tensor] | None = reference
    quantized: Mapping[str, Tensor] | None = None
    for name, outputs, error in answers:
        if outputs is not None:
            results.append(
                RungResult(
                    name,
                    sqnr_of(reference, outputs),
                    _between(previous, outputs),
                    _between(quantized, outputs),
                    error,
                )
            )
        previous = outputs
        if name == QUANTIZED:
            quantized = outputs
    return tuple(results)


def _between(before: Mapping[str, Tensor] | None, outputs: Mapping[str, Tensor]) -> float | None:
    """The least SQNR against an earlier rung: None without one, NaN where it failed."""
    if before is None:
        return None
    return sqnr_of(before, outputs) if before else math.nan


def by_rung(
    calls: Iterable[tuple[int, Sequence[RungResult]]],
) -> dict[str, list[tuple[int, RungResult]]]:
    """What was found on each rung, with the positions of the calls.

    Args:
        calls: Their positions and what was found on their rungs; the first was computed on all.
    """
    found: dict[str, list[tuple[int, RungResult]]] = {}
    for index, rungs in calls:
        for rung in rungs:
            found.setdefault(rung.name, []).append((index, rung))
    return found


def _between_rungs(rung: RungResult) -> dict[str, float | None]:
    """The values against other rungs as JSON: null where they are no numbers, nothing without such a rung."""
    return {
        name: metrics.finite_or_none(value)
        for name in ("previous_sqnr_db", "quantized_sqnr_db")
        if (value := getattr(rung, name)) is not None
    }


def previous_sqnrs_db(results: Iterable[RungResult]) -> list[float]:
    """Against the rung before, of the calls that both have computed."""
    return [one.previous_sqnr_db for one in results if one.previous_sqnr_db is not None]


def rungs_to_json(calls: Iterable[tuple[int, Sequence[RungResult]]]) -> list[dict[str, Any]]:
    """One entry for each rung: its worst and median, and both SQNRs call by call."""
    return [
        {
            "name": name,
            "float_sqnr_db_min": metrics.finite_or_none(
                metrics.worst_of(r.float_sqnr_db for _, r in results)
            ),
            "previous_sqnr_db_min": metrics.finite_or_none(
                metrics.worst_of(previous_sqnrs_db(r for _, r in results))
            ),
            "calls": [
                {
                    "index": index,
                    "float_sqnr_db": metrics.finite_or_none(rung.float_sqnr_db),
                    **_between_rungs(rung),
                    "error": rung.error,
                }
                for index, rung in results
            ],
        }
        for name, results in by_rung(calls).items()
    ]
