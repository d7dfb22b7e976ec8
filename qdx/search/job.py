"""`qdx plan search` as a function: an analysis and demands become a plan, checked against the model and the target."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qdx.analyze.analysis import FLOAT_OPTION, Analysis, Group
from qdx.exporter.errors import UsageError, quoted
from qdx.exporter.graph.ir.site import ROLES
from qdx.exporter.model_faults import choices
from qdx.exporter.plan import Plan
from qdx.exporter.plan.schema.load import plan_from_json
from qdx.exporter.progress import SILENT, Progress
from qdx.search.budgets import Demand
from qdx.search.fits import check_model_fits, check_plan_fits, check_target_fits, digest
from qdx.search.kept import kept
from qdx.search.outcomes import Pipeline
from qdx.search.pareto import Point
from qdx.search.problem import Problem, problem_of
from qdx.search.search import Result, Settings, search
from qdx.search.wording import describe, found_section, reasons
from qdx.search.write_plan import assigned_of, options_of_base, write_plan

if TYPE_CHECKING:
    from qdx.search.by_slopes import Slopes
    from qdx.search.interactions import ErrorsOf
    from qdx.search.ledger import Measure
    from qdx.search.search import Holds
    from qdx.search.solve import Objective
    from qdx.source.pipeline import TracedPipeline
    from qdx.targets.profile import TargetProfile

__all__ = ["PlanFound", "Tools", "check_fits", "find_plan", "pipeline_of", "read_roles"]


@dataclass(frozen=True)
class Tools:
    """What measures for a search; without any, it goes by the analysis alone.

    Attributes:
        measure: Measures assignments of the analysis' groups whole.
        errors_of: Errors of single choices; None where the analysis kept none.
        slopes: Returns what tells slopes of an objective; None where nothing does.
        holds: Judges finished pictures.
        kept: Folder that keeps what was measured; None keeps nothing.
    """

    measure: Measure | None = None
    errors_of: ErrorsOf | None = None
    slopes: Callable[[Objective], Slopes] | None = None
    holds: Holds | None = None
    kept: Path | None = None


@dataclass(frozen=True)
class PlanFound:
    """What a search returns.

    Attributes:
        plan: The plan.
        result: All figures.
        problem: What there was to choose.
    """

    plan: Plan
    result: Result
    problem: Problem

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
    check_plan_fits(analysis, base.name or "", digest(base.to_json()))
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
    problem = problem_of(analysis)
    fixed = _fixed(analysis.groups, analysis, pipeline, base, fix)
    if no_float:
        fixed = {**_quantized(problem), **fixed}
    why = "--no-float leaves it no other" if no_float and not fix else settings.why_fixed
    settings = replace(settings, fixed=fixed or None, why_fixed=why)
    measure = tools.measure
    if measure is not None and tools.kept is not None:
        measure = kept(measure, tools.kept, analysis_sha256)
    result = search(
        problem,
        demand,
        settings,
        measure=measure,
        errors_of=tools.errors_of,
        slopes=None if tools.slopes is None else tools.slopes(settings.objective),
        holds=tools.holds,
        progress=progress,
    )
    plan = write_plan(
        base,
        pipeline,
        analysis.options,
        assigned_of(analysis.groups, result.assignment),
        name=name,
        description=describe(result, analysis.target.name, demand.words, base.name or ""),
        why=reasons(analysis, problem, result.assignment),
    )
    section = found_section(
        problem,
        result,
        target=analysis.target.name,
        analysis=analysis_sha256,
        asked=demand.words,
        seed=settings.seed,
    )
    data = {**plan.to_json(), "found": section.model_dump(mode="json", by_alias=True, exclude_none=True)}  # fmt: skip
    return PlanFound(plan_from_json(data, source=name), result, problem)


def _quantized(problem: Problem) -> Mapping[int, frozenset[int]]:
    """The options of every part that has another than float, without that."""
    allowed = (frozenset(c.option for c in part.choices) - {FLOAT_OPTION} for part in problem.parts)
    return {place: options for place, options in enumerate(allowed) if options}


def _fixed(
    groups: Sequence[Group],
    analysis: Analysis,
    pipeline: Pipeline,
    base: Plan,
    roles: Sequence[str],
) -> Mapping[int, frozenset[int]]:
    if not roles:
        return {}
    asked = options_of_base(base, pipeline, analysis.options, groups)
    found: dict[int, frozenset[int]] = {}
    for place, (group, option) in enumerate(zip(groups, asked, strict=True)):
        if not set(roles) & set(group.roles):
            continue
        if option is None:
            raise UsageError(
                f"--fix: none of the options analyzed is what the plan asks of {quoted(group.sites[0])}",
                hint="analyze with that option too",
            )
        found[place] = frozenset({option})
    if not found:
        raise UsageError(f"--fix: no operation that was analyzed is one of {choices(roles)}")
    return found
