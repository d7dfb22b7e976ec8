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

from qdx.verify import metrics

__all__ = [
    "ARTIFACT",
    "QUANTIZED",
    "UNOPTIMIZED",
    "Rung",
    "RungResult",
    "climb",
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
    """

    name: str
    run: Run
    open: Callable[[], None] = _nothing
    close: Callable[[], None] = _nothing
    fresh: Run | None = None


@dataclass(frozen=True)
class RungResult:
    """One call on one rung.

    Attributes:
        name: Of the rung.
        float_sqnr_db: Against float PyTorch, the least over the outputs; NaN for bad data.
        previous_sqnr_db: Against the rung before, likewise.
        quantized_sqnr_db: Against the quantized graph in PyTorch, likewise: the error of lowering alone.
            None on that rung itself, and where there is none.
        error: What went wrong, in words; empty otherwise.
    """

    name: str
    float_sqnr_db: float
    previous_sqnr_db: float
    quantized_sqnr_db: float | None = None
    error: str = ""


def sqnr_of(reference: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> float:
    """The least SQNR over the outputs of a reference, in decibels; NaN where one is missing."""
    return metrics.worst_of(
        metrics.sqnr_db(tensor, outputs[name]) if name in outputs else math.nan
        for name, tensor in reference.items()
    )


def climb(
    reference: Mapping[str, Tensor], answers: Sequence[tuple[str, Mapping[str, Tensor], str]]
) -> tuple[RungResult, ...]:
    """Measures what the rungs answered to one call.

    Args:
        reference: What float PyTorch answered.
        answers: Of each rung in order its name, its outputs and its error; a rung that failed has no
            outputs.
    """
    results = []
    previous, quantized = reference, None
    for name, outputs, error in answers:
        results.append(
            RungResult(
                name,
                sqnr_of(reference, outputs),
                sqnr_of(previous, outputs) if previous else math.nan,
                None
                if quantized is None
                else sqnr_of(quantized, outputs)
                if quantized
                else math.nan,
                error,
            )
        )
        previous = outputs
        if name == QUANTIZED:
            quantized = outputs
    return tuple(results)


def rungs_to_json(calls: Iterable[tuple[int, Sequence[RungResult]]]) -> list[dict[str, Any]]:
    """One entry for each rung: its worst and median, and both SQNRs call by call."""
    found: dict[str, list[tuple[int, RungResult]]] = {}
    for index, rungs in calls:
        for rung in rungs:
            found.setdefault(rung.name, []).append((index, rung))
    return [
        {
            "name": name,
            "float_sqnr_db_min": metrics.finite_or_none(
                metrics.worst_of(r.float_sqnr_db for _, r in results)
            ),
            "previous_sqnr_db_min": metrics.finite_or_none(
                metrics.worst_of(r.previous_sqnr_db for _, r in results)
            ),
            "calls": [
                {
                    "index": index,
                    "float_sqnr_db": metrics.finite_or_none(rung.float_sqnr_db),
                    "previous_sqnr_db": metrics.finite_or_none(rung.previous_sqnr_db),
                    "quantized_sqnr_db": metrics.finite_or_none(rung.quantized_sqnr_db),
                    "error": rung.error,
                }
                for index, rung in results
            ],
        }
        for name, results in found.items()
    ]
