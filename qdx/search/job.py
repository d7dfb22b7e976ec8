"""`qdx plan search` as a function: an analysis and demands become a plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from qdx.exporter.errors import UsageError, quoted
from qdx.exporter.plan.schema.load import plan_from_json
from qdx.exporter.progress import SILENT, Progress
from qdx.search.fits import check_groups_fit
from qdx.search.found import PlanFound
from qdx.search.from_analysis import problem_of
from qdx.search.from_base import fixed_of, never_float, start_of
from qdx.search.judging import expected_db, judge_of, with_gates
from qdx.search.kept import kept
from qdx.search.over_schedule import Searched, check_timestep_groups, over_schedule
from qdx.search.search import Settings, search
from qdx.search.timed_front import check_time_front, timed_front
from qdx.search.tools import BASE, FOUND, NO_TOOLS, TakeMs, Tools
from qdx.search.wording import describe, found_section, reasons, told_latency
from qdx.search.write_plan import assigned_of, options_of_base, write_plan
from qdx.search.write_timesteps import timed_of, write_timesteps

if TYPE_CHECKING:
    from qdx.analyze.analysis import Analysis
    from qdx.analyze.weighing import Weighing
    from qdx.exporter.plan import Plan
    from qdx.search.budgets import Demand
    from qdx.search.ledger import Measure
    from qdx.search.outcomes import Pipeline
    from qdx.search.problem import Assignment
    from qdx.search.wording import Wording

__all__ = ["find_plan"]


def find_plan(
    analysis: Analysis,
    pipeline: Pipeline,
    base: Plan,
    demand: Demand,
    settings: Settings,
    *,
    name: str,
    analysis_sha256: str,
    weigh: Weighing = "steps",
    fix: Sequence[str] = (),
    timestep_groups: int = 1,
    no_float: bool = False,
    time_front: bool = False,
    tools: Tools = NO_TOOLS,
    progress: Progress = SILENT,
) -> PlanFound:
    """Searches, and writes the plan.

    Args:
        analysis: Of the model on the target, upon the base; noises are weighed as the search is to count them.
        pipeline: What plans are resolved for.
        base: The plan that the search begins from.
        demand: Budgets and goals.
        settings: Of the search.
        name: Of the new plan.
        analysis_sha256: Digest of the analysis.
        weigh: How the noises of the analysis are weighed, which the plan tells.
        fix: Roles whose operations stay as the base has them.
        timestep_groups: Segments of the schedule in which inputs may have ranges and types of their own, at most.
        no_float: Whether every other operation takes an option, and none stays float.
        time_front: Whether every point of the front is timed in the target's runtime, and stays only where it is faster than those
            of less noise.
        tools: What measures.
        progress: Told of the steps.

    Raises:
        TargetRefusal: The demands cannot be met.
        UsageError: The analysis does not know what they need, or is not of this model, or nothing comes to what the base asks of a
            fixed role, or a front is to be timed that is over another cost or has nothing that times it.
    """
    if base.quantizes_artifacts:
        raise UsageError(
            f"--from: plan {quoted(base.name or 'unnamed')} leaves the choice to `{base.quantizer}`",
            hint="begin from a plan whose rules qdx carries out, such as w8a8",
        )
    check_timestep_groups(
        timestep_groups, base, predicted=tools.divide is None, judged=bool(demand.judged)
    )
    check_groups_fit(analysis, pipeline)
    base = with_gates(base, demand.judged)
    problem = problem_of(analysis)
    asked = options_of_base(base, pipeline, analysis.options, analysis.groups)
    start = start_of(problem, asked)
    fixed = fixed_of(analysis.groups, asked, fix)
    settings = replace(
        settings,
        fixed={**never_float(problem), **fixed} if no_float else fixed,
        starts={} if start is None else {BASE: start},
    )
    write = partial(write_plan, base, pipeline, analysis.options, name=name)

    def candidate(assignment: Assignment) -> Plan:
        return write(
            assigned_of(analysis.groups, assignment),
            description="a candidate",
            why=reasons(analysis, problem, assignment),
            readable=False,
        )

    judge = None
    if demand.judged and tools.gates_of is not None:
        settings = replace(settings, start_db=expected_db(base, pipeline.target, demand.judged))
        judge = judge_of(
            tools.gates_of, candidate, demand.judged, basis=analysis_sha256, folder=tools.kept
        )
    if time_front:
        check_time_front(settings.prefer, timed=tools.take_ms is not None)
    take_ms = None if tools.take_ms is None else _timing(tools.take_ms, start)
    keeping = partial(_kept, folder=tools.kept, basis=analysis_sha256)
    result = search(
        problem,
        demand,
        settings,
        measure=None if tools.measure is None else keeping(tools.measure, ""),
        errors_of=tools.errors_of,
        judge=judge,
        by_call=tools.by_call,
        slopes=None if tools.slopes is None else tools.slopes(settings.objective),
        slower=None if take_ms is None else lambda found: _is_slower(take_ms(found)),
        progress=progress,
    )
    if time_front and tools.take_ms is not None:
        result = replace(result, front=timed_front(result.front, tools.take_ms))
    found = Searched(problem, result)
    if timestep_groups > 1 and tools.divide is not None:
        found = over_schedule(
            found, demand, settings, tools.divide, timestep_groups, keeping=keeping, progress=progress
        )  # fmt: skip
    plan = _written(write, analysis, pipeline, found, demand.words, base.name or "")
    section = found_section(
        found.problem,
        found.result,
        target=analysis.target.name,
        analysis=analysis_sha256,
        asked=demand.words,
        weigh=weigh,
        prefer=settings.prefer,
        guidance_weight=settings.objective.noises.get("guidance", 0.0),
        fixed=fix,
        no_float=no_float,
        seed=settings.seed,
    )
    told = section.model_dump(mode="json", by_alias=True, exclude_none=True)
    made = plan_from_json({**plan.to_json(), "found": told}, source=name)
    taken_ms = None
    if take_ms is not None and not found.steps and demand.is_of_time(settings.prefer):
        taken_ms = take_ms(found.result.assignment)
    return PlanFound(made, found.result, found.problem, taken_ms, found.steps)


class _Write(Protocol):
    """`write_plan` for all that is the same of every plan of a search."""

    def __call__(
        self, assigned: Mapping[tuple[str, str], int], /, *, description: str, why: Wording
    ) -> Plan: ...


def _written(
    write: _Write, analysis: Analysis, pipeline: Pipeline, found: Searched, asked: str, base: str
) -> Plan:
    """The plan that was found, with what changes over the schedule."""
    options, result = found.by_group, found.result
    why = reasons(analysis, found.problem, result.assignment)
    latency = "" if found.steps else told_latency(analysis, found.problem, result.assignment)
    plan = write(
        assigned_of(analysis.groups, [options[group.id][0] for group in analysis.groups]),
        description=describe(result, analysis.target.name, asked, base, latency),
        why=why,
    )
    if not found.steps:
        return plan
    timed = {group.id: options[group.id] for group in analysis.groups if len(options[group.id]) > 1}
    return write_timesteps(
        plan, pipeline, analysis.options, timed_of(analysis.groups, timed), found.steps, why
    )


def _timing(
    take_ms: TakeMs, start: Assignment | None
) -> Callable[[Assignment], Mapping[str, float]]:
    """What times each assignment once; what the search began from is one plan, with one time."""

    @cache
    def timed(assignment: Assignment) -> Mapping[str, float]:
        taken = take_ms({FOUND: assignment})
        return {**taken, FOUND: taken.get(BASE, taken[FOUND])} if assignment == start else taken

    return timed


def _is_slower(taken: Mapping[str, float]) -> bool:
    """Whether a plan was measured to take longer than what the search began from."""
    return BASE in taken and taken[FOUND] > taken[BASE]


def _kept(measure: Measure, name: str, *, folder: Path | None, basis: str) -> Measure:
    """What measures only what the folder does not have under a name."""
    if folder is None:
        return measure
    return kept(measure, folder, f"{basis} {name}" if name else basis)
