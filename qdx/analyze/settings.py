"""What an analysis is asked to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from qdx.cache.store import Store
    from qdx.exporter.plan.schema.plan import Plan

__all__ = ["USUAL", "AnalysisSettings"]


@dataclass(frozen=True)
class AnalysisSettings:
    """How a model is analyzed.

    Attributes:
        plan: Whose options, float types and calibration hold, and upon which options are asked; None for floats.
        call: Arguments of the pipeline call, as for an export.
        components: What is analyzed; None for the denoisers.
        setup: Methods that are called before, as for an export.
        variant: Of the stored weights, likewise.
        prompts: Of the runs; None takes the call's own with several seeds.
        options: What is tried, such as `int4:block32` or `int8/int8`; what the target does not have is simulated. None
            tries what the target has.
        calls: Steps that are measured of each graph, spread over the schedule and the runs; every branch of guidance of a
            step counts. None takes all steps of the schedule, and the last two in every run, up to 32.
        workers: Parts computed at a time, each with one thread; None takes one for each processor.
        memory_bytes: Memory for values of float runs, all workers together; None takes a part of what is free. With less,
            more is computed again.
        cache: Keeps what is done, so that an interrupted analysis goes on; None keeps nothing.
        fresh: Begin anew, whatever is kept.
        cluster: `HOST:PORT` of a Ray cluster whose machines measure; None measures here. `workers` counts its processes then,
            and None takes one for each of its processors.
    """

    plan: str | Path | Plan | None = None
    call: dict[str, Any] | None = None
    components: Sequence[str] | None = None
    setup: Sequence[Mapping[str, Any]] = ()
    variant: str | None = None
    prompts: Sequence[str] | None = field(default=None, repr=False)
    options: Sequence[str] | None = None
    calls: int | None = None
    workers: int | None = None
    memory_bytes: int | None = None
    cache: Store | None = field(default=None, repr=False)
    fresh: bool = False
    cluster: str | None = None


USUAL: Final = AnalysisSettings()
"""Where nothing is asked for."""
