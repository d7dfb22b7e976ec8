"""Everything that an analysis measures with, made ready: on the quantized graphs that exports lower.

A search measures whole assignments with the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from qdx.analyze.calls import Moment, RecordedInputs, choose_moments, moments_of, runs_of
from qdx.analyze.groups import Bound, bound_sites
from qdx.analyze.options import Offering, candidates, offerings
from qdx.analyze.prepared import Prepared, prepare, ranges_of
from qdx.analyze.report import Findings, analysis_of
from qdx.analyze.survey import Survey, memory_for_values
from qdx.analyze.whole import Whole
from qdx.backends.registry import get_backend
from qdx.cache.facts import computing_versions, images_digest
from qdx.cache.keys import key_of
from qdx.cache.numbers import StoredNumbers
from qdx.calibration.kept import Kept
from qdx.exporter.capture.model import read_model
from qdx.exporter.capture.recorded_call import record_call
from qdx.exporter.capture.setup import check_setup
from qdx.exporter.errors import TargetRefusal, UsageError, quoted
from qdx.exporter.formats.memory import remembering
from qdx.exporter.plan.schema.load import load_plan, parse_plan
from qdx.exporter.plan.schema.plan import Plan
from qdx.exporter.progress import SILENT
from qdx.exporter.text.words import memory
from qdx.source.pipeline import trace_pipeline
from qdx.source.planned import PlannedGraphs, plan_graphs
from qdx.source.timesteps import with_exact_timesteps
from qdx.sweep.workers import available_cores, one_thread
from qdx.targets.profile import TargetProfile, load_target

if TYPE_CHECKING:
    from pydantic import JsonValue

    from qdx.analyze.analysis import Analysis
    from qdx.analyze.folder import NoiseByCall
    from qdx.cache.store import Store
    from qdx.exporter.capture.model import Model
    from qdx.exporter.progress import Progress
    from qdx.source.pipeline import TracedPipeline

__all__ = ["Session", "open_session"]

_KIND: Final = "analysis"
_DENOISER: Final = "denoiser"
_FLOATS: Final = """{
  "schema": "qdx.plan/1",
  "name": "float",
  "rules": [{ "select": { "component": "*" }, "weights": { "dtype": "float" } }],
  "gates": {}
}"""
"""The plan upon which options are asked where nobody gives one."""


@dataclass(frozen=True)
class Session:
    """An analysis under way.

    Attributes:
        findings: All that it rests on, without numbers.
        prepared: The quantized graphs.
        survey: The measurements of single options.
        place: A folder that keeps results.
        workers: Parts computed at a time.
        progress: Shows the steps.
    """

    findings: Findings = field(repr=False)
    prepared: Prepared = field(repr=False)
    survey: Survey = field(repr=False)
    place: Path
    workers: int
    progress: Progress = field(repr=False)

    def analysis(self) -> tuple[Analysis, NoiseByCall]:
        """Measures what is not known yet, and returns the data of the analysis and its numbers by call."""
        results = self.survey.run(
            self.place / "results", workers=self.workers, progress=self.progress
        )
        return analysis_of(self.findings, self.survey, results)

    @cached_property
    def whole(self) -> Whole:
        """What measures options of all groups together.

        Raises:
            UsageError: The plan smooths activations.
        """
        return Whole.of(
            self.survey, self.place / "whole", workers=self.workers, progress=self.progress
        )


@contextmanager
def open_session(
    model: Model,
    *,
    target: str | Path | TargetProfile,
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
    source: TracedPipeline | None = None,
    like: Analysis | None = None,
    progress: Progress = SILENT,
) -> Iterator[Session]:
    """Makes an analysis ready; see `analyze` for the arguments and errors.

    Two more: `source` is the pipeline where it is traced already, and `like` an analysis whose options this one has instead
    of `options`, and whose steps where `calls` is None.
    """
    profile = target if isinstance(target, TargetProfile) else load_target(target)
    base = _base(plan)
    asked = candidates(options) if like is None else like.options[1:]
    if source is None:
        folder = read_model(model, variant=variant).with_setup(check_setup(setup))
        source = trace_pipeline(folder, call or {}, variant=variant, progress=progress, cache=cache)
        for note in source.notes:
            progress.say(note)
    wheres = _wanted(source, components)
    given = profile
    profile, _ = with_exact_timesteps(profile, source.skeleton, source.captured)
    with progress.task("tracing"):
        planned = plan_graphs(source, _analyzable(base), profile)
        offered = offerings(source, planned, profile, asked, wheres)
    if not offered:
        raise TargetRefusal(
            f"`{profile.name}` offers no option to {', '.join(map(quoted, wheres))}",
            hint=f"`qdx targets {profile.name}` lists what runs in low precision",
        )
    facts = _facts(source)
    bound = {where: _bound(planned, offered, where) for where in wheres}
    runs = runs_of(source, _computing(source, planned), base.calibration, prompts)
    moments = (
        _spread(runs.calls, wheres, base.calibration.samples, calls)
        if like is None or calls is not None
        else moments_of(like.calls)
    )
    count = workers or available_cores()
    kept = None if cache is None else Kept(cache, fresh=fresh)
    stored = None if cache is None else StoredNumbers(cache)
    sampling: dict[str, JsonValue] = {
        "call": record_call(runs.call),
        "images": images_digest(runs.call),
        "prompts": None if prompts is None else list(prompts),
        "samples": base.calibration.samples,
        "seed": base.calibration.seed,
    }
    key = key_of({**facts, "runs": sampling, "faces": _faces(planned)})
    with one_thread(), remembering(stored), _place(key, kept) as place:
        ranges = ranges_of(
            source, planned, profile, offered,
            prompts=prompts, workers=workers, kept=kept, progress=progress,
        )  # fmt: skip
        recorded = runs.record(moments, place / "runs", workers=count, progress=progress)
        with progress.task("placing quantizers"):
            backend = get_backend(profile.runtime)
            prepared = prepare(source, planned, offered, ranges, backend, wheres)
        prepared.warm(progress)
        limit = memory_for_values(prepared, recorded, count, memory_bytes)
        survey = Survey(prepared, bound, recorded, key_of(facts), limit)
        progress.say(_words(survey, offered, bound, recorded, count, limit * count))
        findings = Findings(source, given, planned, base, offered, bound, recorded, runs, prompts)
        yield Session(findings, prepared, survey, place, count, progress)


def _base(plan: str | Path | Plan | None) -> Plan:
    if plan is None:
        return parse_plan(_FLOATS, source="float")
    return plan if isinstance(plan, Plan) else load_plan(plan)


def _spread(
    made: Sequence[tuple[str, float | None]], wheres: Sequence[str], samples: int, count: int | None
) -> tuple[Moment, ...]:
    return tuple(
        moment
        for where in wheres
        for moment in choose_moments(made, where, samples=samples, count=count)
    )


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


def _computing(source: TracedPipeline, planned: PlannedGraphs) -> dict[str, Any]:
    """Every graph of the call, with weights as pages of their files, as the runs compute it."""
    return {
        where: replace(graph, weights=source.mapped_weights[where.partition(".")[0]])
        for where, graph in planned.graphs.items()
    }


def _faces(planned: PlannedGraphs) -> JsonValue:
    """The inputs of every graph: another target's may have other shapes and types, and recorded ones do not fit it."""
    return {
        where: [[one.name, one.dtype, [str(size) for size in one.shape]] for one in graph.inputs]
        for where, graph in sorted(planned.graphs.items())
    }


def _facts(source: TracedPipeline) -> dict[str, JsonValue]:
    """What every number depends on."""
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


@contextmanager
def _place(key: str, kept: Kept | None) -> Iterator[Path]:
    """A folder for what is done, which stays for the next analysis of the same model and runs."""
    if kept is None:
        with TemporaryDirectory(prefix="qdx-analysis-") as temporary:
            yield Path(temporary)
        return
    if kept.fresh:
        kept.store.remove_working(_KIND, key)
    with kept.store.working(_KIND, key) as place:
        yield place


def _words(
    survey: Survey,
    offered: Sequence[Offering],
    bound: Mapping[str, Sequence[Bound]],
    recorded: Sequence[RecordedInputs],
    workers: int,
    values_bytes: int,
) -> str:
    groups = sum(map(len, bound.values()))
    return (
        f"analyzing: {groups} groups of operations, {len(offered)} options, {len(recorded)} steps, "
        f"{survey.jobs} measurements, {workers} at a time, up to {memory(values_bytes)} for float values"
    )
