"""`qdx plan search` as a function: an analysis and demands become a plan, checked against the model and the target."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qdx.analyze.analysis import FLOAT_OPTION, Analysis
from qdx.analyze.plan_digest import plan_digest
from qdx.exporter.errors import UsageError, quoted
from qdx.exporter.graph.ir.site import ROLES
from qdx.exporter.model_faults import choices
from qdx.exporter.plan import Plan
from qdx.exporter.plan.schema.load import plan_from_json
from qdx.exporter.progress import SILENT, Progress
from qdx.search.budgets import Demand
from qdx.search.fits import check_model_fits, check_plan_fits, check_target_fits, digest
from qdx.search.from_base import fixed_of, start_of
from qdx.search.judging import expected_db, judge_of, with_gates
from qdx.search.kept import kept
from qdx.search.outcomes import Pipeline
from qdx.search.over_schedule import Searched, check_timestep_groups, over_schedule
from qdx.search.pareto import Point
from qdx.search.problem import Assignment, Problem, problem_of
from qdx.search.search import Result, Settings, search
from qdx.search.wording import describe, found_section, reasons, told_latency
from qdx.search.write_plan import assigned_of, options_of_base, write_plan
from qdx.search.write_timesteps import timed_of, write_timesteps

if TYPE_CHECKING:
    from qdx.search.by_call import NoiseByCall
    from qdx.search.by_slopes import Slopes
    from qdx.search.divided import Divide
    from qdx.search.interactions import ErrorsOf
    from qdx.search.ledger import Measure
    from qdx.search.solve import Objective
    from qdx.source.pipeline import TracedPipeline
    from qdx.targets.profile import TargetProfile
    from qdx.verification.judge.gates import Gate

__all__ = [
    "BASE",
    "FOUND",
    "PlanFound",
    "Tools",
    "check_fits",
    "check_timestep_groups",
    "find_plan",
    "pipeline_of",
    "read_roles",
]


FOUND: Final = "this plan"
BASE: Final = "what it began from"


@dataclass(frozen=True)
class Tools:
    """What measures for a search; without any, it goes by the analysis alone.

    Attributes:
        measure: Measures assignments of the analysis' groups whole.
        errors_of: Errors of single choices; None where the analysis kept none.
        gates_of: Exports a plan, verifies it and returns its gates; None where nothing makes pictures.
        by_call: Noise of single options by call; None where the analysis kept none.
        slopes: Returns what tells slopes of an objective; None where nothing does.
        divide: Divides the schedule; None where inputs are the same at all timesteps.
        kept: Folder that keeps what was measured; None keeps nothing.
        take_ms: Measures what an assignment takes in the target's runtime, by name, beside `float` and what the search
            began from; None where that does not run here.
    """

    measure: Measure | None = None
    errors_of: ErrorsOf | None = None
    gates_of: Callable[[Plan], Sequence[Gate]] | None = None
    by_call: NoiseByCall | None = None
    slopes: Callable[[Objective], Slopes] | None = None
    divide: Divide | None = None
    kept: Path | None = None
    take_ms: Callable[[Assignment], Mapping[str, float]] | None = None


@dataclass(frozen=True)
class PlanFound:
    """What a search returns.

    Attributes:
        plan: The plan.
        result: All figures.
        problem: What there was to choose.
        taken_ms: What was measured in the target's runtime of the plan, `FOUND`, of `float` and of what it began from,
            `BASE`; None where nothing was. Not in the plan, since it is another in every run.
        steps: Segments of the schedule, as fractions of it, in which inputs have ranges and types of their own; empty for one.
    """

    plan: Plan
    result: Result
    problem: Problem
    taken_ms: Mapping[str, float] | None = None

    @property
    def predicted_ms(self) -> float | None:
        """What a call takes by the table of the analysis; None where it has none."""
        if "latency_ms" not in self.problem.known_costs:
            return None
        return self.problem.cost(self.result.assignment, "latency_ms")

    steps: tuple[tuple[float, float], ...] = ()

    @property
    def point(self) -> Point:
        """The plan as a point of the front."""
        front, one = self.result.front, self.result.assignment
        return Point(
            one,
            self.problem.cost(one, front.cost),
            self.problem.average_bits(one),
            self.result.predicted,
            self.result.measured,
        )

    def to_json(self) -> dict[str, Any]:
        """It as plain JSON data."""
        refitted = self.result.refitted
        return {
            "plan": self.plan.to_json(),
            "timesteps": [list(span) for span in self.steps],
            "assignment": list(self.result.assignment),
            "front": self.result.front.to_json(),
            "predicted": dict(self.result.predicted),
            "measured": None if self.result.measured is None else dict(self.result.measured),
            "additive": None if self.result.additive is None else dict(self.result.additive),
            "refit": None
            if refitted is None
            else {
                "start": refitted.start,
                "candidates": dict(refitted.candidates),
                "rounds": list(refitted.rounds),
                "settled": refitted.settled,
                "measured": refitted.measured,
            },
            "judged": None if self.result.verdict is None else self.result.verdict.to_json(),
            **({} if self.taken_ms is None else {"taken_ms": dict(self.taken_ms)}),
            "controls": [
                {"name": c.name, "average_bits": round(c.average_bits, 4), "noise": dict(c.noise)}
                for c in self.result.controls
            ],
        }


def read_roles(texts: Sequence[str]) -> tuple[str, ...]:
    """Returns the roles that `--fix` names.

    Raises:
        UsageError: One is none that operations have.
    """
    for text in texts:
        if text not in ROLES:
            raise UsageError(
                f"--fix: {quoted(text)} is not a role", hint=f"roles are {choices(ROLES)}"
            )
    return tuple(dict.fromkeys(texts))


def check_fits(
    analysis: Analysis, source: TracedPipeline, profile: TargetProfile, base: Plan
) -> None:
    """Refuses an analysis of another model, for another target or upon another plan.

    Raises:
        UsageError: With what differs.
    """
    from qdx.source.same_model import digest_of

    check_target_fits(analysis, profile.name, digest(profile.model_dump(mode="json")))
    check_plan_fits(analysis, base.name or "", plan_digest(base))
    names = [*analysis.model.files]
    found: dict[str, str] = {}
    for name in names:
        try:
            found[name] = digest_of(source.folder, name, source.cache)
        except (OSError, LookupError):
            continue
    check_model_fits(analysis, found)


def pipeline_of(source: TracedPipeline, profile: TargetProfile, base: Plan) -> Pipeline:
    """Returns what plans are resolved for: the sites of all graphs as the target has them."""
    from qdx.source.planned import plan_graphs

    planned = plan_graphs(source, base, profile)
    return Pipeline(
        tuple(source.skeleton.modules),
        planned.sites,
        source.captured.kinds,
        frozenset(source.upcast),
        profile,
    )


def find_plan(
    analysis: Analysis,
    pipeline: Pipeline,
    base: Plan,
    demand: Demand,
    settings: Settings,
    *,
    name: str,
    analysis_sha256: str,
    fix: Sequence[str] = (),
    timestep_groups: int = 1,
    no_float: bool = False,
    tools: Tools = Tools(),
    progress: Progress = SILENT,
) -> PlanFound:
    """Searches, and writes the plan.

    Args:
        analysis: Of the model on the target, upon the base.
        pipeline: What plans are resolved for.
        base: The plan that the search begins from.
        demand: Budgets and goals.
        settings: Of the search.
        name: Of the new plan.
        analysis_sha256: Digest of the analysis.
        fix: Roles whose operations stay as the base has them.
        timestep_groups: Segments of the schedule in which inputs may have ranges and types of their own, at most.
        no_float: Whether every other operation takes an option, and none stays float.
        tools: What measures.
        progress: Told of the steps.

    Raises:
        TargetRefusal: The demands cannot be met.
        UsageError: The analysis does not know what they need, or nothing comes to what the base asks of a fixed role.
    """
    if base.quantizes_artifacts:
        raise UsageError(
            f"--from: plan {quoted(base.name or 'unnamed')} leaves the choice to `{base.quantizer}`",
            hint="begin from a plan whose rules qdx carries out, such as w8a8",
        )
    check_timestep_groups(
        timestep_groups, base, predicted=tools.divide is None, judged=bool(demand.judged)
    )
    base = with_gates(base, demand.judged)
    problem = problem_of(analysis)
    asked = options_of_base(base, pipeline, analysis.options, analysis.groups)
    fixed, start = fixed_of(analysis.groups, asked, fix), start_of(problem, asked)
    if no_float:
        fixed = {**_quantized(problem), **fixed}
    why_fixed = "--no-float leaves it no other" if no_float and not fix else settings.why_fixed
    settings = replace(
        settings,
        fixed=fixed or None,
        why_fixed=why_fixed,
        starts={} if start is None else {BASE: start},
    )
    judge = None
    take_ms = None if tools.take_ms is None else _timing(tools.take_ms, start)

    def written(assignment: Assignment) -> Plan:
        return write_plan(
            base,
            pipeline,
            analysis.options,
            assigned_of(analysis.groups, assignment),
            name=name,
            description="a candidate",
            why=reasons(analysis, problem, assignment),
            readable=False,
        )

    if demand.judged and tools.gates_of is not None:
        settings = replace(settings, start_db=expected_db(base, pipeline.target, demand.judged))
        judge = judge_of(
            tools.gates_of, written, demand.judged, basis=analysis_sha256, folder=tools.kept
        )
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
    found = Searched(problem, result)
    if timestep_groups > 1 and tools.divide is not None:
        found = over_schedule(
            found, demand, settings, tools.divide, timestep_groups, keeping=keeping, progress=progress
        )  # fmt: skip
    result, options = found.result, found.by_group
    why = reasons(analysis, found.problem, result.assignment)
    plan = write_plan(
        base,
        pipeline,
        analysis.options,
        assigned_of(analysis.groups, [options[group.id][0] for group in analysis.groups]),
        name=name,
        description=describe(
            result,
            analysis.target.name,
            demand.words,
            base.name or "",
            "" if found.steps else told_latency(analysis, problem, result.assignment),
        ),
        why=why,
    )
    if found.steps:
        timed = {
            group.id: options[group.id] for group in analysis.groups if len(options[group.id]) > 1
        }
        plan = write_timesteps(
            plan, pipeline, analysis.options, timed_of(analysis.groups, timed), found.steps, why
        )
    section = found_section(
        found.problem,
        result,
        target=analysis.target.name,
        analysis=analysis_sha256,
        asked=demand.words,
        seed=settings.seed,
    )
    data = {**plan.to_json(), "found": section.model_dump(mode="json", by_alias=True, exclude_none=True)}  # fmt: skip
    taken_ms = None
    if take_ms is not None and not found.steps and _is_of_time(demand, settings):
        taken_ms = take_ms(result.assignment)
    made = plan_from_json(data, source=name)
    return PlanFound(made, result, found.problem, taken_ms, found.steps)


def _is_of_time(demand: Demand, settings: Settings) -> bool:
    """Whether latency was asked for in any way."""
    return bool({"latency_ms", "speedup"} & set(demand.budgets)) or settings.prefer == "latency_ms"


def _timing(
    take_ms: Callable[[Assignment], Mapping[str, float]], start: Assignment | None
) -> Callable[[Assignment], Mapping[str, float]]:
    """What times each assignment once; what the search began from is one plan, with one time."""

    @cache
    def timed(assignment: Assignment) -> Mapping[str, float]:
        taken = take_ms(assignment)
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


def _quantized(problem: Problem) -> Mapping[int, frozenset[int]]:
    """The options of every part that has another than float, without that."""
    allowed = (frozenset(c.option for c in part.choices) - {FLOAT_OPTION} for part in problem.parts)
    return {place: options for place, options in enumerate(allowed) if options}
