"""What an analysis is asked to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qdx.exporter.errors import UsageError, quoted

if TYPE_CHECKING:
    from qdx.analyze.latency_table import How
    from qdx.analyze.trajectory_data import CallWeight
    from qdx.cache.store import Store
    from qdx.exporter.plan.schema.plan import Plan

__all__ = ["PARTS", "USUAL", "AnalysisSettings", "read_parts"]


PARTS: Final = ("noise", "gradients", "trajectory", "ablations")
"""What an analysis finds out: noise of single options, what a backward pass says, what errors become over a run, and what
parts of the model that are left float would gain."""


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
        latency: What every option takes: `measured` in the target's own runtime, `declared` by what vendors say of its
            device, or `auto`, which measures where the runtime runs here. Measured times are those of this machine: only
            with a `cache` are they the same again.
        threads: Of the runtime that is timed; None for its own choice. With one, processor time is measured.
        workers: Parts computed at a time, each with one thread; None takes one for each processor.
        memory_bytes: Memory for values of float runs, all workers together; None takes a part of what is free. With less,
            more is computed again.
        cache: Keeps what is done, so that an interrupted analysis goes on; None keeps nothing.
        fresh: Begin anew, whatever is kept.
        cluster: `HOST:PORT` of a Ray cluster whose machines measure; None measures here. `workers` counts its processes then,
            and None takes one for each of its processors.
        parts: Of `PARTS`, what is found out; noise always is. None takes all, errors over whole runs and parts left float of
            as many options as are affordable.
        trace: Whether gradients come with the Hessian's trace.
        weights: Of steps, in the place of equal ones.
    """

    plan: str | Path | Plan | None = None
    call: dict[str, Any] | None = None
    components: Sequence[str] | None = None
    setup: Sequence[Mapping[str, Any]] = ()
    variant: str | None = None
    prompts: Sequence[str] | None = field(default=None, repr=False)
    options: Sequence[str] | None = None
    calls: int | None = None
    latency: How = "none"
    threads: int | None = None
    workers: int | None = None
    memory_bytes: int | None = None
    cache: Store | None = field(default=None, repr=False)
    fresh: bool = False
    cluster: str | None = None
    parts: Sequence[str] | None = None
    trace: bool = False
    weights: Sequence[CallWeight] | None = field(default=None, repr=False)


def read_parts(text: str) -> tuple[str, ...]:
    """Reads `--parts`, names between commas.

    Raises:
        UsageError: One is not of `PARTS`.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in PARTS]
    if unknown or not names:
        got = quoted(unknown[0]) if unknown else "nothing"
        raise UsageError(f"--parts: got {got}", hint=f"parts are {', '.join(PARTS)}")
    return tuple(name for name in PARTS if name in names)


USUAL: Final = AnalysisSettings()
"""Where nothing is asked for."""
