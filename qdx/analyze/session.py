"""Everything that an analysis measures with, made ready: on the quantized graphs that exports lower.

A search measures whole assignments with the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from qdx.analyze.backward_memory import check_backward_memory
from qdx.analyze.calls import Moment, RecordedInputs, choose_moments, moments_of, runs_of, steps_of
from qdx.analyze.effort import usual_steps
from qdx.analyze.follow import Follow
from qdx.analyze.gradient_survey import GradientSurvey
from qdx.analyze.ground import ground_of
from qdx.analyze.groups import Bound
from qdx.analyze.learned import Learned, learner_of
from qdx.analyze.offerings import Offering
from qdx.analyze.option_text import candidates
from qdx.analyze.prepared import Prepared, prepare, ranges_of
from qdx.analyze.remote import open_parcel, parcel_of, probe_of
from qdx.analyze.report import Findings, analysis_of
from qdx.analyze.settings import PARTS, USUAL, AnalysisSettings
from qdx.analyze.survey import Survey, memory_for_values
from qdx.analyze.weights import weighed_moments
from qdx.analyze.whole import Whole
from qdx.backends.registry import get_backend
from qdx.cache.facts import images_digest
from qdx.cache.keys import key_of
from qdx.cache.numbers import StoredNumbers
from qdx.calibration.kept import Kept
from qdx.exporter.capture.model import read_model
from qdx.exporter.capture.recorded_call import record_call
from qdx.exporter.capture.setup import check_setup
from qdx.exporter.errors import UsageError
from qdx.exporter.formats.memory import remembering
from qdx.exporter.plan.schema.load import load_plan, parse_plan
from qdx.exporter.plan.schema.plan import Plan
from qdx.exporter.progress import SILENT
from qdx.exporter.text.words import memory
from qdx.source.pipeline import trace_pipeline
from qdx.source.planned import PlannedGraphs
from qdx.sweep.workers import available_cores, one_thread
from qdx.targets.profile import TargetProfile, load_target

if TYPE_CHECKING:
    from pydantic import JsonValue

    from qdx.analyze.analysis import Analysis
    from qdx.analyze.folder import NoiseByCall
    from qdx.analyze.gradient_data import Gradients
    from qdx.analyze.ground import Ground
    from qdx.exporter.calibrate.ranges import Ranges
    from qdx.exporter.capture.model import Model
    from qdx.exporter.progress import Progress
    from qdx.source.pipeline import TracedPipeline
    from qdx.sweep.elsewhere import Elsewhere

__all__ = ["Session", "open_session"]

_KIND: Final = "analysis"
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
        ground: What of that does not depend on what computes.
        ranges: Of activations; None where no option needs any.
        prepared: The quantized graphs.
        survey: The measurements of single options.
        place: A folder that keeps results.
        workers: Parts computed at a time.
        progress: Shows the steps.
        settings: What was asked for.
        elsewhere: Other machines that measure; None for processes here.
        learned: What options learned from calls.
    """

    findings: Findings = field(repr=False)
    ground: Ground = field(repr=False)
    ranges: Ranges | None = field(repr=False)
    prepared: Prepared = field(repr=False)
    survey: Survey = field(repr=False)
    place: Path
    workers: int
    progress: Progress = field(repr=False)
    settings: AnalysisSettings = field(default=USUAL, repr=False)
    elsewhere: Elsewhere | None = field(default=None, repr=False)
    learned: Learned = field(default_factory=Learned, repr=False)

    def analysis(self) -> tuple[Analysis, NoiseByCall]:
        """Measures what is not known yet, and returns the data of the analysis and its numbers by call."""
        wanted = PARTS if self.settings.parts is None else self.settings.parts
        check_backward_memory(self.prepared.traced.values(), wanted)
        results = self.survey.run(
            self.place / "results",
            workers=self.workers,
            progress=self.progress,
            elsewhere=self.elsewhere,
        )
        analysis, arrays = analysis_of(self.findings, self.survey, results)
        follow = Follow(
            self.survey, self.findings.runs, analysis, self.place, self.workers, self.progress,
            self.settings.parts is not None,
        )  # fmt: skip
        return analysis.model_copy(
            update={
                "gradients": self._gradients(analysis) if "gradients" in wanted else None,
                "trajectory": follow.trajectory() if "trajectory" in wanted else None,
                "ablations": follow.ablations() if "ablations" in wanted else None,
            }
        ), arrays

    def _gradients(self, analysis: Analysis) -> Gradients | None:
        survey = GradientSurvey(self.survey, self.settings.trace)
        folder = self.place / "gradients"
        found = survey.run(folder, workers=self.workers, progress=self.progress)
        return survey.section(analysis, found)

    @cached_property
    def whole(self) -> Whole:
        """What measures options of all groups together.

        Raises:
            UsageError: The plan smooths activations, and an option is of weights alone.
        """
        return Whole.of(
            self.survey,
            self.place / "whole",
            workers=self.workers,
            progress=self.progress,
            elsewhere=self.elsewhere,
        )


@contextmanager
def open_session(
    model: Model,
    *,
    target: str | Path | TargetProfile,
    settings: AnalysisSettings = USUAL,
    source: TracedPipeline | None = None,
    like: Analysis | None = None,
    progress: Progress = SILENT,
) -> Iterator[Session]:
    """Makes an analysis ready; see `analyze` for the arguments and errors.

    Two more: `source` is the pipeline where it is traced already, and `like` an analysis whose options this one has, and
    whose steps unless the settings say how many.
    """
    prompts, cache, variant = settings.prompts, settings.cache, settings.variant
    profile = target if isinstance(target, TargetProfile) else load_target(target)
    base = _base(settings.plan)
    asked = candidates(settings.options) if like is None else like.options[1:]
    if source is None:
        folder = read_model(model, variant=variant).with_setup(check_setup(settings.setup))
        source = trace_pipeline(
            folder, settings.call or {}, variant=variant, progress=progress, cache=cache
        )
        for note in source.notes:
            progress.say(note)
    ground = ground_of(source, profile, base, asked, settings.components, progress)
    planned, offered, wheres = ground.planned, ground.offered, ground.wheres
    profile, bound, facts = ground.profile, ground.bound, dict(ground.facts)
    runs = runs_of(source, _computing(source, planned), base.calibration, prompts)
    moments = (
        _spread(runs.calls, ground, settings.calls)
        if like is None or settings.calls is not None
        else moments_of(like.calls)
    )
    if settings.weights is not None:
        moments = weighed_moments(moments, settings.weights)
    count = available_cores()
    if settings.cluster is None:
        count = settings.workers or count
    kept = None if cache is None else Kept(cache, fresh=settings.fresh)
    stored = None if cache is None else StoredNumbers(cache)
    sampling: dict[str, JsonValue] = {
        "call": record_call(runs.call),
        "images": images_digest(runs.call),
        "prompts": None if prompts is None else list(prompts),
        "samples": base.calibration.samples,
        "seed": base.calibration.seed,
        # Of one model, targets take inputs of different dtypes and ranks.
        "inputs": {
            where: [[one.name, one.dtype, list(one.shape)] for one in graph.inputs]
            for where, graph in planned.graphs.items()
        },
    }
    key = key_of({**facts, "runs": sampling})
    with one_thread(), remembering(stored), _place(key, kept) as place, ExitStack() as stack:
        ranges = ranges_of(
            source, planned, profile, offered,
            prompts=prompts, workers=count, kept=kept, progress=progress,
        )  # fmt: skip
        recorded = runs.record(moments, place / "runs", workers=count, progress=progress)
        learner = learner_of(
            source, planned, offered, runs.call,
            prompts=prompts, workers=count, kept=kept, progress=progress,
        )  # fmt: skip
        learned = Learned(None if learner is None else stack.enter_context(learner))
        with progress.task("placing quantizers"):
            backend = get_backend(profile.runtime)
            prepared = prepare(source, planned, offered, ranges, backend, wheres, learned)
        prepared.warm(progress)
        limit = memory_for_values(prepared, recorded, count, settings.memory_bytes)
        survey = Survey(prepared, bound, recorded, key_of(facts), limit)
        where = f"{count} at a time, up to {memory(limit * count)} for float values"
        if settings.cluster is not None:
            where = f"on the cluster at {settings.cluster}"
        progress.say(_words(survey, offered, bound, recorded, where))
        findings = Findings(
            source, ground.given, planned, base, offered, bound, recorded, runs, prompts
        )
        with _elsewhere(settings, ground, survey, ranges, learned, progress) as elsewhere:
            yield Session(
                findings,
                ground,
                ranges,
                prepared,
                survey,
                place,
                count,
                progress,
                settings,
                elsewhere,
                learned,
            )


@contextmanager
def _elsewhere(
    settings: AnalysisSettings,
    ground: Ground,
    survey: Survey,
    ranges: Ranges | None,
    learned: Learned,
    progress: Progress,
) -> Iterator[Elsewhere | None]:
    """The machines of a cluster, where one is asked for."""
    if settings.cluster is None:
        yield None
        return
    from qdx.sweep.ray_cluster import RayCluster

    with progress.task("measuring what every machine must come to"):
        probe = probe_of(survey)
    parcel = parcel_of(ground, survey, ranges, settings.workers, learned)
    with RayCluster(
        settings.cluster,
        workers=settings.workers,
        opener=open_parcel,
        parcel=parcel,
        probe=probe,
        progress=progress,
    ) as cluster:
        yield cluster


def _base(plan: str | Path | Plan | None) -> Plan:
    if plan is None:
        return parse_plan(_FLOATS, source="float")
    found = plan if isinstance(plan, Plan) else load_plan(plan)
    if found.tune is not None:
        raise UsageError(
            "plan: `tune`: an analysis measures single operations quantized, of which none has learned with the others",
            hint="leave `tune` out of the plan, and add it to the one that a search finds",
        )
    return found


def _spread(
    made: Sequence[tuple[str, float | None]], ground: Ground, count: int | None
) -> tuple[Moment, ...]:
    found: list[Moment] = []
    for where, bound in ground.bound.items():
        each = [len(places) for _, places in steps_of(made, where)]
        calls = sum(each) / len(each) if each else 1.0
        most = usual_steps(ground.planned.sites[where], bound, calls)
        samples = ground.base.calibration.samples
        found += choose_moments(made, where, samples=samples, count=count, most=most)
    return tuple(found)


def _computing(source: TracedPipeline, planned: PlannedGraphs) -> dict[str, Any]:
    """Every graph of the call, with weights as pages of their files, as the runs compute it."""
    return {
        where: replace(graph, weights=source.mapped_weights[where.partition(".")[0]])
        for where, graph in planned.graphs.items()
    }


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
    how: str,
) -> str:
    groups = sum(map(len, bound.values()))
    return (
        f"analyzing: {groups} groups of operations, {len(offered)} options, {len(recorded)} steps, "
        f"{survey.jobs} measurements, {how}"
    )
