"""What measures candidates of a search: options of all groups at once, on the calls of the analysis."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from qdx.exporter.errors import UsageError
from qdx.exporter.strict_json import dump_json
from qdx.search.by_call import noise_by_call
from qdx.search.ledger import Measured
from qdx.search.tools import BASE, Tools

if TYPE_CHECKING:
    from qdx.analyze.analysis import Analysis
    from qdx.analyze.folder import NoiseByCall
    from qdx.analyze.session import Session
    from qdx.analyze.trajectory_data import CallWeight
    from qdx.cache.store import Store
    from qdx.exporter.plan import Plan
    from qdx.exporter.progress import Progress
    from qdx.search.by_slopes import Slopes
    from qdx.search.problem import Assignment
    from qdx.search.solve import Objective
    from qdx.source.pipeline import TracedPipeline
    from qdx.targets.profile import TargetProfile

__all__ = ["check_prompts", "measuring"]

_OTHERWISE: Final = "or decide by the analysis alone: --predicted"


def check_prompts(analysis: Analysis, prompts: Sequence[str] | None) -> None:
    """Refuses prompts that are not those of the analysis.

    Raises:
        UsageError: They are others, or missing.
    """
    expected = analysis.sampling.prompts
    found = None
    if prompts is not None:
        found = hashlib.sha256(dump_json(list(prompts))).hexdigest()
    if found == expected:
        return
    if expected is None:
        what, hint = "--calib: the analysis ran with the call's own prompt", "leave --calib out"
    elif found is None:
        what = "candidates are measured with the prompts of the analysis, which it does not hold"
        hint = "give the file that `qdx analyze` had: --calib FILE"
    else:
        what, hint = "--calib: other prompts than the analysis ran with", "give its file"
    raise UsageError(what, hint=f"{hint}, {_OTHERWISE}")


@contextmanager
def measuring(
    analysis: Analysis,
    folder: Path,
    source: TracedPipeline,
    profile: TargetProfile,
    base: Plan,
    *,
    prompts: Sequence[str] | None,
    workers: int | None,
    memory_bytes: int | None = None,
    cluster: str | None = None,
    cache: Store | None,
    progress: Progress,
    calls: int | None = None,
    timestep_groups: int = 1,
    arrays: NoiseByCall | None = None,
    weights: Sequence[CallWeight] | None = None,
) -> Iterator[Tools]:
    """What measures candidates as the analysis measured single options.

    Args:
        analysis: The analysis.
        folder: Where it lies.
        source: The pipeline.
        profile: The target.
        base: The plan that it is upon.
        prompts: Those of the analysis; see `check_prompts`.
        workers: Parts at a time; None takes all cores.
        memory_bytes: For values of float runs, all workers together; None takes a part of what is free.
        cluster: `HOST:PORT` of a Ray cluster whose machines measure; None measures here.
        cache: Keeps recorded runs and results; None keeps nothing.
        progress: Told of every measurement.
        calls: Steps on which candidates are measured; None takes those of the analysis.
        timestep_groups: Segments of the schedule that are to be asked for; they are checked before anything is measured.
        arrays: The numbers beside the analysis; None reads them.
        weights: Of steps, as the analysis and the numbers have them; None where they count alike.

    Raises:
        InvalidInput: The numbers beside the analysis are missing or damaged.
        UsageError: The plan smooths activations and an option is of weights alone, groups of the analysis are
            not those of the model as it is read now, or the calibration does not keep so many segments apart.
    """
    from qdx.analyze.by_timestep import Schedule
    from qdx.analyze.folder import read_analysis
    from qdx.analyze.latency_job import without_latency
    from qdx.analyze.report import groups_of
    from qdx.analyze.session import open_session
    from qdx.analyze.settings import AnalysisSettings
    from qdx.analyze.slopes import slopes
    from qdx.search.interactions import errors_from
    from qdx.search.schedule import check_segments, divider

    if arrays is None:
        _, arrays = read_analysis(folder)
    wheres = analysis.wheres
    errors = {
        "prediction": {where: arrays[f"errors.{where}"].numpy() for where in wheres},
        "guidance": {where: arrays[f"guidance_errors.{where}"].numpy() for where in wheres},
    }
    settings = AnalysisSettings(
        plan=base,
        components=list(dict.fromkeys(where.partition(".")[0] for where in wheres)),
        prompts=prompts,
        workers=workers,
        memory_bytes=memory_bytes,
        cache=cache,
        cluster=cluster,
        calls=calls,
        weights=weights,
    )
    with open_session(
        source.folder,
        target=profile,
        settings=settings,
        source=source,
        like=analysis,
        progress=progress,
    ) as session:
        offered = tuple(one.option for one in session.findings.offered)
        groups = groups_of(session.findings)[0]
        if offered != analysis.options[1:] or groups != without_latency(analysis).groups:
            raise UsageError(
                "--analysis: its options or groups are not those of the model and the target now",
                hint=f"analyze again with this version, {_OTHERWISE}",
            )
        if timestep_groups > 1:
            check_segments(Schedule(session), timestep_groups)
        whole = session.whole

        def measure(assignments: Sequence[Assignment]) -> list[Measured]:
            return [Measured(one.noise, one.errors) for one in whole.measure(assignments)]

        def slopes_of(objective: Objective) -> Slopes:
            return lambda assignment: slopes(whole, assignment, objective.noises)

        def take_ms(assignments: Mapping[str, Assignment]) -> dict[str, float]:
            return _taken(session, analysis, assignments)

        timed = analysis.latency is not None and analysis.latency.source == "measured"
        yield Tools(
            measure=measure,
            errors_of=errors_from(analysis, errors),
            slopes=slopes_of,
            by_call=noise_by_call(analysis, {w: arrays[f"single.{w}"].numpy() for w in wheres}),
            divide=divider(session, analysis, arrays),
            take_ms=take_ms if timed else None,
        )


def _taken(
    session: Session, analysis: Analysis, assignments: Mapping[str, Assignment]
) -> dict[str, float]:
    """What plans take whole, beside float and the plan that they began from, with the threads of the analysis."""
    from qdx.analyze.latency_whole import assigned, can_lower, whole_ms

    assert analysis.latency is not None
    machine = analysis.latency.graphs[0].machine
    plans = {name: assigned(session, one) for name, one in assignments.items()}
    base = session.findings.planned.resolved
    if can_lower(session, base):
        plans[BASE] = base
    else:
        session.progress.say("the plan that it began from is not timed: no option analyzed needs what it has to know of activations")  # fmt: skip
    return whole_ms(session, plans, threads=None if machine is None else machine.threads)
