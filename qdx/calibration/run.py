"""Calibration of a pipeline: what is observed when, by how many workers, and how their samples become one.

Schedulers, guidance and text processing are the pipeline's own. A component computes as its graph does, node by
node with late weights, so that memory holds a share of the weights and never the model.
"""

from __future__ import annotations

import functools
import hashlib
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from qdx._version import __version__
from qdx.calibration.checkpoint import KeptAnswers, SampleCheckpoint, Seal
from qdx.calibration.estimate import SMALLER_CALL, Pace, chosen_workers
from qdx.calibration.prompts import prompts_record, sample_calls
from qdx.calibration.sample import Observer, Sample, SampleJob, no_checkpoints
from qdx.calibration.unasked import tell_cut_prompts
from qdx.calibration.workers import Tell, run_samples
from qdx.exporter.calibrate.observed import observed_steps
from qdx.exporter.calibrate.provenance import Provenance
from qdx.exporter.calibrate.ranges import Ranges, merged_ranges
from qdx.exporter.calibrate.timesteps import boundaries_for
from qdx.exporter.calibrate.weight_cache import WeightCache, budget_bytes
from qdx.exporter.capture.arguments import complete_call
from qdx.exporter.capture.component_weights import open_weights
from qdx.exporter.capture.cut_prompts import tokenizing
from qdx.exporter.capture.materialize import fill_weights
from qdx.exporter.capture.media import call_parameters
from qdx.exporter.capture.recorded_call import record_call
from qdx.exporter.capture.skeleton import build_skeleton
from qdx.exporter.capture.variants import signature_of
from qdx.exporter.devices import CPU, computing_on, describe_device
from qdx.exporter.errors import StorageError, UsageError, quoted
from qdx.exporter.files import dump_json
from qdx.exporter.graph.ir.weights import load_buffers
from qdx.exporter.plan.schema.settings import CALIBRATION_STEPS_MOST
from qdx.exporter.progress import SILENT
from qdx.runtime.placed_modules import modules_on
from qdx.source.schedule import rehearse
from qdx.sweep.workers import one_thread

if TYPE_CHECKING:
    from qdx.exporter.capture.folder import PipelineFolder
    from qdx.exporter.capture.skeleton import Skeleton
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.graph.ir.site import Site
    from qdx.exporter.plan.resolve.timestep_groups import RecordedGroups
    from qdx.exporter.plan.schema.settings import Calibration
    from qdx.exporter.progress import Progress
    from qdx.source.schedule import MethodSchedule, Rehearsal

__all__ = ["Observer", "calibrate", "calibrated_call", "computing_samples"]

_STEPS: Final = "num_inference_steps"


def calibrate(
    folder: PipelineFolder,
    graphs: Mapping[str, Graph],
    sites: Mapping[str, Sequence[Site]],
    *,
    call: dict[str, Any],
    settings: Calibration,
    digests: Mapping[str, str],
    observed_graphs: Mapping[str, Graph] | None = None,
    prompts: Sequence[str] | None = None,
    workers: int | None = None,
    device: torch.device = CPU,
    work: Path | None = None,
    trajectories: Path | None = None,
    progress: Progress = SILENT,
    task_name: str = "calibrating",
    observer: Observer | None = None,
    check: Callable[[RecordedGroups], None] | None = None,
) -> Ranges:
    """Records the ranges of every site's inputs and output over real runs of the pipeline.

    A sample is one pipeline call. A share of its steps is observed; the others compute alone, and what follows the
    last observed call is left out. The same arguments give the same ranges to the bit, in any process, with any
    number of workers or processors, interrupted or not.

    Args:
        folder: The pipeline.
        graphs: Its graphs by `component.method`, with the static shapes that `call` leads to. A component
            without any computes in PyTorch, with its weights in memory.
        sites: What to observe, likewise; a graph without sites only computes.
        call: Arguments of the pipeline call as the user gave them. Where the settings tell no steps, those that it
            has, or the pipeline's own, are taken up to `CALIBRATION_STEPS_MOST`.
        settings: Number of samples, steps, seeds, groups of timesteps, observed share and branches of guidance.
        digests: SHA-256 of the model's files by relative path, for the provenance.
        observed_graphs: The form in which graphs are observed, where it is another: with attention written out, or
            activations smoothed. Sites are those of that form.
        prompts: Each sample takes as many as the call's own prompt is long, from the first on and round
            again; None keeps the call's prompt, so that samples differ in noise alone.
        workers: Samples computed at a time, each with one thread; None takes one for each processor. On a GPU it
            is one.
        device: What computes. The pipeline's own Python stays on the processor.
        work: A folder in which what is done is kept, so that a later call with the same arguments goes on from
            there; None keeps nothing.
        trajectories: Such a folder of another calibration of the same samples, whose answers lead from step to
            step here too.
        progress: Told of every call of a component.
        task_name: What it is told that this is.
        observer: Told of every call of a graph, in this process. The arrays are the pipeline's: they change
            after the call.
        check: Told of the groups of timesteps that will be recorded, before anything computes; what it
            raises ends the calibration.

    Raises:
        UsageError: The pipeline takes no prompts, no number of steps, or not this call.
        InvalidModel: An activation is NaN or infinite, or the pipeline does not run.
        StorageError: The disk refused, or memory ran out in a worker.
        InsufficientMemory: Memory will not do, or that of the GPU ran out.
    """
    skeleton = build_skeleton(folder)
    full = calibrated_call(skeleton, call, settings)
    calls = sample_calls(full, settings.samples, prompts)
    signatures = {where: signature_of(graph) for where, graph in graphs.items()}
    with (
        one_thread(),
        computing_on(device, SMALLER_CALL),
        _places(work, trajectories) as places,
    ):
        with progress.task("rehearsing the schedule"):
            _read_buffers(skeleton, graphs)
            with tokenizing(skeleton.pipeline) as seen:
                rehearsal = rehearse(skeleton, calls[0], signatures)
        tell_cut_prompts(seen, skeleton.pipeline, calls, prompts)
        groups = _Groups.of(graphs, rehearsal.methods, settings)
        if check is not None:
            check(groups)
        covered = {graph.component for graph in graphs.values()}
        others = {name: skeleton.modules[name] for name in rehearsal.components - covered}
        for name, module in others.items():
            fill_weights(module, skeleton, name)
        provenance = Provenance(
            qdx=__version__,
            torch=str(torch.__version__),
            device=describe_device(device),
            threads=1,
            pipeline_class=folder.pipeline_class,
            files=dict(sorted(digests.items())),
            call=record_call(call),
            samples=settings.samples,
            steps=full.get(_STEPS),
            observed=settings.observed,
            seed=settings.seed,
            prompts=prompts_record(calls, prompts),
            branches=settings.branches,
            guidance={},
        )
        forms = {**graphs, **(observed_graphs or {})}
        cache = WeightCache(budget_bytes(device, forms.values()), device)
        job = SampleJob(
            skeleton,
            {where: cache.attach(graph) for where, graph in graphs.items()},
            {where: cache.attach(forms[where]) for where, found in sites.items() if found},
            sites,
            rehearsal,
            groups.boundaries,
            _chosen_steps(rehearsal, settings),
            settings,
            provenance,
            device,
            observer,
        )
        names = [f"sample {n + 1}{_words(one, prompts)}" for n, one in enumerate(calls)]
        numbers = computing_samples(job, len(calls))
        count = chosen_workers(job, len(numbers), workers)
        total = sum(len(job.calls(number)) for number in numbers)
        with progress.task(task_name, total, unit="calls") as task:
            pace = Pace(job, numbers, count, task, progress, task_name)
            with modules_on(others, device):
                _run_all(job, numbers, calls, names, places, count, pace.told)
        # One after the other: statistics of many samples are not in memory together.
        found = (_finished(job, places, number) for number in numbers)
        return functools.reduce(merged_ranges, found)


def computing_samples(job: SampleJob, samples: int) -> tuple[int, ...]:
    """The samples that compute anything: of a schedule of very few steps, some observe none.

    Raises:
        UsageError: None does.
    """
    found = tuple(number for number in range(samples) if job.calls(number))
    if not found:
        observed = ", ".join(map(quoted, job.observed_graphs))
        raise UsageError(
            f"calibration: {job.skeleton.folder.pipeline_class} does not call {observed} here: nothing to observe",
            hint="give a call with --call that uses what the plan quantizes",
        )
    return found


@dataclass(frozen=True)
class _Places:
    """Where samples are kept.

    Attributes:
        work: Folders of samples under way.
        spare: The same for what finds no room there; it goes with this calibration, and is made when it is needed.
        trajectories: Those of the calibration that leads; None without.
    """

    work: Path
    spare: Path
    trajectories: Path | None

    @staticmethod
    def of(place: Path, number: int) -> Path:
        """The folder of one sample."""
        return place / f"sample-{number:04d}"

    def spare_of(self, number: int, seal: Seal) -> SampleCheckpoint:
        """The spare place of a sample."""
        try:
            self.spare.mkdir(mode=0o700, exist_ok=True)
        except OSError as bad:
            raise StorageError(f"{quoted(self.spare)}: {bad.strerror or bad}") from bad
        return SampleCheckpoint(self.of(self.spare, number), seal)


def _run_all(
    job: SampleJob,
    numbers: Sequence[int],
    calls: Sequence[dict[str, Any]],
    names: Sequence[str],
    places: _Places,
    workers: int,
    told: Tell,
) -> None:
    """Computes what is not finished yet."""

    def run(number: int, tell: Tell) -> None:
        seal = _seal(job, number)
        spare = functools.partial(places.spare_of, number, seal)
        try:
            checkpoint = SampleCheckpoint(places.of(places.work, number), seal)
        except StorageError as full:
            tell({"say": no_checkpoints(full)})
            checkpoint = spare()
        _tell_damage(checkpoint, tell)
        earlier = None
        if places.trajectories is not None:
            earlier = KeptAnswers(places.of(places.trajectories, number), seal)
            _tell_damage(earlier, tell)
        if not checkpoint.is_finished:
            Sample(
                job, number, calls[number], names[number], checkpoint, spare, earlier, tell
            ).run()
            return
        made = job.calls(number)
        for (where, _), observed in zip(job.rehearsal.calls[: len(made)], made, strict=True):
            tell({"where": where, "observed": observed, "replayed": True, "seconds": 0.0})

    # The longest begin first, so that no worker is left alone with one at the end.
    longest = sorted(numbers, key=lambda number: len(job.calls(number)), reverse=True)
    run_samples(longest, run, workers=workers, tell=told)


def _tell_damage(kept: KeptAnswers, tell: Tell) -> None:
    if kept.damage:
        tell({"say": f"calibration: a checkpoint is damaged and is made again: {kept.damage}"})


def _seal(job: SampleJob, number: int) -> Seal:
    """What the files of a sample belong to."""
    answers = dump_json({"sample": number, "provenance": job.provenance.model_dump(mode="json")})
    observed = {
        where: {
            "boundaries": job.boundaries[where],
            "nodes": [node.name for node in graph.program.graph.nodes],
            "sites": [site.key for site in job.sites[where]],
        }
        for where, graph in job.observed_graphs.items()
    }
    digest = hashlib.sha256(answers)
    leading = digest.hexdigest()
    digest.update(dump_json(observed))
    return Seal(leading, digest.hexdigest())


def _finished(job: SampleJob, places: _Places, number: int) -> Ranges:
    seal = _seal(job, number)
    for place in (places.work, places.spare):
        folder = places.of(place, number)
        found = SampleCheckpoint(folder, seal).finished if folder.is_dir() else None
        if found is not None:
            return found
    raise StorageError(
        f"{quoted(places.of(places.work, number))}: the statistics of a finished sample are gone or damaged",
        hint="give the same command again",
    )


@contextmanager
def _places(work: Path | None, trajectories: Path | None) -> Iterator[_Places]:
    spare = Path(tempfile.gettempdir()) / f"qdx-calibration-{secrets.token_hex(16)}"
    try:
        if work is not None:
            yield _Places(work, spare, trajectories)
        else:
            with tempfile.TemporaryDirectory(prefix="qdx-calibration-") as temporary:
                yield _Places(Path(temporary), spare, trajectories)
    finally:
        if spare.is_dir():
            shutil.rmtree(spare)


def _chosen_steps(
    rehearsal: Rehearsal, settings: Calibration
) -> dict[str, tuple[frozenset[int], ...]]:
    """By graph, the steps of every sample that are observed."""
    return {
        where: observed_steps(len(schedule.timesteps), settings.samples, settings.observed)
        for where, schedule in rehearsal.methods.items()
    }


@dataclass(frozen=True)
class _Groups:
    """The groups of timesteps of each graph, as `RecordedGroups` wants them."""

    boundaries: Mapping[str, tuple[float, ...]]

    @classmethod
    def of(
        cls,
        graphs: Iterable[str],
        schedules: Mapping[str, MethodSchedule],
        settings: Calibration,
    ) -> _Groups:
        """Those of a schedule."""
        timesteps = {where: one.timesteps for where, one in schedules.items()}
        return cls({
            where: boundaries_for(timesteps.get(where) or (0.0,), settings.timestep_groups)
            for where in graphs
        })  # fmt: skip

    def groups(self, where: str) -> tuple[float, ...]:
        """Boundaries between the groups of a graph."""
        return self.boundaries[where]


def calibrated_call(
    skeleton: Skeleton, call: dict[str, Any], settings: Calibration
) -> dict[str, Any]:
    """Returns a pipeline call with everything that a run needs, and as many steps as the settings say.

    Args:
        skeleton: The pipeline.
        call: Arguments as the user gave them.
        settings: Of the calibration.

    Raises:
        UsageError: The pipeline takes no number of steps, or not this call.
    """
    parameters = call_parameters(skeleton.pipeline)
    full = complete_call(skeleton.pipeline, call)
    if _STEPS not in parameters:
        if settings.steps is not None:
            raise UsageError(
                f"calibration: {settings.steps} steps, but {type(skeleton.pipeline).__name__} takes no number of steps",
                hint="leave `steps` out of the plan's calibration",
            )
        return full
    if _STEPS not in call:
        full.pop(_STEPS)  # those of a dry run
    usual = call.get(_STEPS, parameters[_STEPS].default)
    if settings.steps is not None:
        full[_STEPS] = settings.steps
    elif isinstance(usual, int) and _STEPS not in (settings.call or {}):
        # Distilled models are made for few steps: what is long becomes shorter, and nothing longer.
        full[_STEPS] = min(usual, max(CALIBRATION_STEPS_MOST, settings.timestep_groups))
    return full


def _words(call: dict[str, Any], prompts: Sequence[str] | None) -> str:
    return "" if prompts is None else f", prompt {quoted(call['prompt'])}"


def _read_buffers(skeleton: Skeleton, graphs: Mapping[str, Graph]) -> None:
    """Gives modules the stored buffers that the pipeline's Python may read, such as latent means."""
    for name in dict.fromkeys(graph.component for graph in graphs.values()):
        load_buffers(skeleton.modules[name], open_weights(skeleton.folder.components[name]))
