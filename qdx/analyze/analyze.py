"""`qdx analyze` as a function: what each part of a model tolerates on a target, in a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qdx.analyze.folder import noise_file, write_analysis
from qdx.analyze.folder_check import check_folder
from qdx.analyze.session import open_session
from qdx.exporter.progress import SILENT

if TYPE_CHECKING:
    from qdx.analyze.analysis import Analysis
    from qdx.cache.store import Store
    from qdx.exporter.capture.model import Model
    from qdx.exporter.plan.schema.plan import Plan
    from qdx.exporter.progress import Progress
    from qdx.targets.profile import TargetProfile

__all__ = ["analyze"]


def analyze(
    model: Model,
    *,
    target: str | Path | TargetProfile,
    output: Path | str,
    plan: str | Path | Plan | None = None,
    call: dict[str, Any] | None = None,
    components: Sequence[str] | None = None,
    setup: Sequence[Mapping[str, Any]] = (),
    variant: str | None = None,
    prompts: Sequence[str] | None = None,
    options: Sequence[str] | None = None,
    calls: int | None = None,
    workers: int | None = None,
    memory_bytes: int | None = None,
    cache: Store | None = None,
    fresh: bool = False,
    force: bool = False,
    progress: Progress = SILENT,
) -> Analysis:
    """Measures what every option of every part of a model does to the output, teacher-forced on float trajectories.

    The same inputs give the same files to the bit, with any number of workers, interrupted or not.

    Args:
        model: A diffusers pipeline folder, or a pipeline in memory.
        target: A target, its name, or a TOML file of your own.
        output: The folder; it must not exist unless `force`.
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
        force: Replace an existing analysis.
        progress: Shows the steps.

    Raises:
        UsageError: An argument is wrong, or nothing is offered.
        InvalidPlan, InvalidTarget, InvalidModel, TargetRefusal, StorageError: See their texts.
    """
    output = Path(output)
    check_folder(output, force=force)
    opened = open_session(
        model,
        target=target,
        plan=plan,
        call=call,
        components=components,
        setup=setup,
        variant=variant,
        prompts=prompts,
        options=options,
        calls=calls,
        workers=workers,
        memory_bytes=memory_bytes,
        cache=cache,
        fresh=fresh,
        progress=progress,
    )
    with opened as session:
        analysis, arrays = session.analysis()
    write_analysis(analysis, noise_file(arrays), output)
    return analysis
