"""What a report keeps of the earlier report that it was held against: enough to judge again by."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from qdx.verification.stored.values import Number, Stored

__all__ = ["ScaleName", "StoredBaseline", "StoredMeasure"]

ScaleName = Literal[
    "decibels", "picture_decibels", "similarity", "error", "least_strength", "greatest_strength",
    "share", "score_drop",
]  # fmt: skip
"""See `qdx.verification.judge.scales`."""


class StoredMeasure(Stored):
    """One measure of the earlier report.

    Attributes:
        name: What was measured, as gates are named.
        scale: On which scale it is compared.
        values: Of each run, the first alone where others do not measure it; null for what was no number.
    """

    name: str
    scale: ScaleName
    values: Annotated[tuple[Number, ...], Field(min_length=1)]


class StoredBaseline(Stored):
    """An earlier report.

    Attributes:
        source: Name of its file.
        bundle: Name of the bundle that it is of.
        drop_db: How much worse a measure in decibels may be.
        paired: Whether it made the same runs, so that each is compared with its own.
        measures: What it measured.
        left_out: Names of measures that are not compared: of the first run alone, where the runs are others.
    """

    source: str
    bundle: str
    drop_db: Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)]
    paired: bool
    measures: tuple[StoredMeasure, ...]
    left_out: tuple[str, ...] = ()
