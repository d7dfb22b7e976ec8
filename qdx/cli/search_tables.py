"""Short tables of what a search found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qdx.cli.output import table
from qdx.search.pareto import decibels

if TYPE_CHECKING:
    from qdx.search.found import PlanFound

__all__ = ["tables_of", "times_of"]


def tables_of(found: PlanFound) -> str:
    """The front, what was found, and what it is held against."""
    result = found.result
    parts = [table(result.front.columns, [*result.front.rows()])]
    figures = found.plan.found
    assert figures is not None
    rows: list[tuple[object, ...]] = [
        (
            "this plan",
            round(figures.average_bits, 2),
            result.sqnr_db(),
            "measured" if result.measured else "predicted",
        )
    ]
    if result.additive is not None:
        rows.append(
            ("additive integer program", None, decibels(result.additive["prediction"]), "measured")
        )
    rows += [
        (one.name, round(one.average_bits, 2), decibels(one.noise["prediction"]), rows[0][3])
        for one in result.controls
    ]
    parts.append(table(("", "bits per weight", "dB", "how"), rows))
    parts += times_of(found)
    rules = len(found.plan.rules)
    parts.append(f"{rules} rule{'s'[: rules != 1]}; {figures.bytes:,} bytes of weights searched")
    return "\n\n".join(parts)


def times_of(found: PlanFound) -> list[str]:
    """What a call takes: by the analysis, and where the runtime runs here, as measured."""
    predicted = found.predicted_ms
    if predicted is None:
        return []
    floats = found.problem.float_ms
    fast = "" if floats is None else f", {floats / predicted:.2f} times as fast as float"
    words = f"predicted to take {predicted:.4g} ms{fast}"
    if found.taken_ms is None:
        return [words]
    float_ms = found.taken_ms["float"]
    rows = [(name, f"{ms:.4g}", f"{float_ms / ms:.2f}") for name, ms in found.taken_ms.items()]
    return [f"{words}; measured in turns:\n{table(('', 'ms', 'times as fast'), rows)}"]
