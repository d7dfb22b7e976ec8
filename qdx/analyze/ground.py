"""What an analysis rests on before anything is computed: the same on every machine that has the model's files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from qdx.analyze.groups import Bound, bound_sites
from qdx.analyze.offerings import Offering, offerings
from qdx.cache.facts import computing_versions
from qdx.exporter.errors import TargetRefusal, UsageError, quoted
from qdx.source.planned import PlannedGraphs, plan_graphs
from qdx.source.timesteps import with_exact_timesteps

if TYPE_CHECKING:
    from pydantic import JsonValue

    from qdx.analyze.analysis import Option
    from qdx.exporter.plan.schema.plan import Plan
    from qdx.exporter.progress import Progress
    from qdx.source.pipeline import TracedPipeline
    from qdx.targets.profile import TargetProfile

__all__ = ["Ground", "ground_of"]

_DENOISER: Final = "denoiser"


@dataclass(frozen=True)
class Ground:
    """A traced pipeline, what a target offers its operations, and which of them go together.

    Attributes:
        source: The pipeline.
        given: The target.
        profile: It, with the timesteps of the pipeline.
        base: The plan upon which options are asked.
        planned: The graphs with that plan.
        offered: The options.
        wheres: The graphs that are analyzed.
        bound: Groups by graph.
        facts: What every number depends on.
    """

    source: TracedPipeline
    given: TargetProfile
    profile: TargetProfile
    base: Plan
    planned: PlannedGraphs = field(repr=False)
    offered: tuple[Offering, ...] = field(repr=False)
    wheres: tuple[str, ...]
    bound: Mapping[str, Sequence[Bound]] = field(repr=False)
    facts: Mapping[str, JsonValue] = field(repr=False)


def ground_of(
    source: TracedPipeline,
    given: TargetProfile,
    base: Plan,
    asked: Sequence[Option],
    components: Sequence[str] | None,
    progress: Progress,
) -> Ground:
    """Traces the graphs, and asks the target what it offers them.

    Args:
        source: The pipeline.
        given: The target.
        base: The plan upon which options are asked.
        asked: The options, without float.
        components: What is analyzed; None for the denoisers.
        progress: Shows the steps.

    Raises:
        UsageError: A component is not there.
        TargetRefusal: Nothing is offered.
    """
    wheres = _wanted(source, components)
    profile, _ = with_exact_timesteps(given, source.skeleton, source.captured)
    with progress.task("tracing"):
        planned = plan_graphs(source, _analyzable(base), profile)
        offered = offerings(source, planned, profile, asked, wheres)
    if not offered:
        raise TargetRefusal(
            f"`{profile.name}` offers no option to {', '.join(map(quoted, wheres))}",
            hint=f"`qdx targets {profile.name}` lists what runs in low precision",
        )
    bound = {where: _bound(planned, offered, where) for where in wheres}
    return Ground(source, given, profile, base, planned, offered, wheres, bound, _facts(source))


def _wanted(source: TracedPipeline, components: Sequence[str] | None) -> tuple[str, ...]:
    """The graphs that are analyzed."""
    called = dict.fromkeys(where.partition(".")[0] for where in source.chosen)
    if components is None:
        kinds = source.captured.kinds
        names = [name for name in called if kinds.get(name) == _DENOISER]
        if not names:
            raise UsageError(
                "nothing in this pipeline denoises: which components are to be analyzed?",
                hint=f"give --components, such as {', '.join(called)}",
            )
    else:
        unknown = [name for name in components if name not in called]
        if unknown:
            raise UsageError(
                f"--components: {quoted(unknown[0])} is not called by the pipeline",
                hint=f"it calls {', '.join(called)}",
            )
        names = list(components)
    return tuple(where for where in source.chosen if where.partition(".")[0] in names)


def _analyzable(base: Plan) -> Plan:
    """A plan whose graphs have the operations of the model: a table of the time embedding computes the same."""
    options = base.options.model_copy(update={"time_embedding": "compute"})
    return base.model_copy(update={"options": options})


def _facts(source: TracedPipeline) -> dict[str, JsonValue]:
    return {
        "versions": computing_versions(),
        "files": dict(source.identity),
        "setup": [dict(step) for step in source.folder.setup],
    }


def _bound(planned: PlannedGraphs, offered: Sequence[Offering], where: str) -> tuple[Bound, ...]:
    sites = planned.sites[where]
    by_key = {
        site.key: {one.option.id for one in offered if (where, site.key) in one.sites}
        for site in sites
    }
    with_inputs = {one.option.id for one in offered if one.option.inputs is not None}
    return bound_sites(planned.graphs[where], sites, by_key, with_inputs)
