"""The whole of a search for a model on the disk: traced, checked against the analysis, searched and written."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from qdx.cache.keys import key_of
from qdx.exporter.plan import Plan
from qdx.exporter.progress import SILENT, Progress
from qdx.search.budgets import Demand
from qdx.search.fits import cautions_of, check_fits
from qdx.search.found import PlanFound
from qdx.search.job import find_plan
from qdx.search.judging import Exports
from qdx.search.measuring import check_prompts, measuring
from qdx.search.outcomes import pipeline_of
from qdx.search.read import ReadAnalysis
from qdx.search.search import Settings
from qdx.search.solve import Objective
from qdx.search.timed_front import check_time_front
from qdx.search.tools import Tools

if TYPE_CHECKING:
    from qdx.analyze.weighing import Weighing
    from qdx.cache.store import Store
    from qdx.targets.profile import TargetProfile

__all__ = ["run"]

_KIND: Final = "search"


def run(
    model: Path,
    read: ReadAnalysis,
    profile: TargetProfile,
    base: Plan,
    demand: Demand,
    *,
    name: str,
    prefer: str = "bytes",
    guidance_weight: float = 0.0,
    weigh: Weighing = "steps",
    seed: int = 0,
    measurements: int | None = None,
    calls: int | None = None,
    timestep_groups: int = 1,
    prompts: Sequence[str] | None = None,
    workers: int | None = None,
    memory_bytes: int | None = None,
    cluster: str | None = None,
    fix: Sequence[str] = (),
    no_float: bool = False,
    time_front: bool = False,
    variant: str | None = None,
    cache: Store | None = None,
    tools: Tools | None = None,
    progress: Progress = SILENT,
) -> PlanFound:
    """Finds a plan for a model.

    Args:
        model: The pipeline folder.
        read: The analysis.
        profile: The target.
        base: The plan that the search begins from.
        demand: Budgets and goals.
        name: Of the new plan.
        prefer: The cost that goals make least.
        guidance_weight: Weight of the noise of what the prompt adds, beside 1 for the prediction.
        weigh: How steps of the schedule count.
        seed: Of the controls.
        measurements: How many candidates may be measured for the refit; None for as many as it usually takes.
        calls: Steps on which candidates are measured; None takes those of the analysis.
        timestep_groups: Segments of the schedule in which inputs may have ranges and types of their own, at most.
        prompts: Those of the analysis, where candidates are measured.
        workers: Parts measured at a time; None takes all cores.
        memory_bytes: For values of float runs, all workers together; None takes a part of what is free.
        cluster: `HOST:PORT` of a Ray cluster whose machines measure; None measures here.
        fix: Roles whose operations stay as the base has them.
        no_float: Whether every other operation takes an option, and none stays float.
        time_front: Whether the front's points are timed in the target's runtime, and stay only where they are faster than those of
            less noise.
        variant: Of the stored weights.
        cache: Where measurements are kept between runs; None keeps none.
        tools: What measures; None measures candidates as the analysis measured single options.
        progress: Told of the steps.

    Raises:
        TargetRefusal: The demands cannot be met.
        UsageError: The analysis is of something else, or does not know what the demands need.
    """
    from qdx.analyze.folder import read_analysis
    from qdx.analyze.weights import trajectory_weights, weighed
    from qdx.cache.facts import computing_versions, processor_name
    from qdx.exporter.capture.model import read_model
    from qdx.exporter.capture.setup import check_setup
    from qdx.source.pipeline import trace_pipeline

    analysis = read.analysis
    if time_front:
        times = None if analysis.latency is None else analysis.latency.source
        check_time_front(prefer, timed=tools is None and times == "measured")
    if tools is None:
        check_prompts(analysis, prompts)
    folder = read_model(model, variant=variant).with_setup(check_setup(analysis.model.setup))
    source = trace_pipeline(
        folder, dict(analysis.sampling.call), variant=variant, cache=cache, progress=progress
    )
    check_fits(analysis, source, profile, base)
    here = cautions_of(
        analysis, computing_versions(), processor_name(), of_time=demand.is_of_time(prefer)
    )
    for words in here:
        progress.say(words)
    arrays = weights = None
    if weigh == "trajectory":
        weights = trajectory_weights(analysis)
        analysis, arrays = weighed(*read_analysis(read.folder), weights)
    noises = {"prediction": 1.0, **({"guidance": guidance_weight} if guidance_weight else {})}
    settings = Settings(Objective(noises), prefer=prefer, seed=seed)
    if measurements is not None:
        settings = replace(settings, measurements=measurements)
    with contextlib.ExitStack() as stack:
        if tools is None:
            tools = stack.enter_context(
                measuring(
                    analysis, read.folder, source, profile, base,
                    prompts=prompts, workers=workers, memory_bytes=memory_bytes, cluster=cluster,
                    cache=cache, progress=progress, calls=calls, timestep_groups=timestep_groups,
                    arrays=arrays, weights=weights,
                )
            )  # fmt: skip
            if demand.judged:
                call = dict(analysis.sampling.call)
                exports = Exports(source, profile, call, prompts, variant, workers, cache, progress)
                tools = replace(tools, gates_of=exports.gates)
        basis = read.sha256
        if calls is not None or weights is not None:
            basis = key_of({"analysis": read.sha256, "calls": calls, "weigh": weigh})
        ready = stack.enter_context(_kept(cache, basis, tools))
        return find_plan(
            analysis,
            pipeline_of(source, profile, base),
            base,
            demand,
            settings,
            name=name,
            analysis_sha256=read.sha256,
            weigh=weigh,
            fix=fix,
            timestep_groups=timestep_groups,
            no_float=no_float,
            time_front=time_front,
            tools=ready,
            progress=progress,
        )


@contextlib.contextmanager
def _kept(cache: Store | None, basis: str, tools: Tools) -> Iterator[Tools]:
    """The tools with a folder that outlives an interrupted search; its measurements serve later searches too."""
    if cache is None or (tools.measure is None and tools.gates_of is None):
        yield tools
        return
    with cache.working(_KIND, basis) as folder:
        yield replace(tools, kept=folder)
