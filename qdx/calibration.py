"""Calibration: the real pipeline runs with its graphs in place of its components, and is observed.

Schedulers, guidance and text processing are the pipeline's own. A component computes as its graph does, node by
node with late weights, so that memory holds a share of the weights and never the model.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray

import qdx
from qdx.bundle.manifest import InputPort, OutputPort
from qdx.exporter.calibrate.guidance import ALL_ROWS, GuidanceTracker
from qdx.exporter.calibrate.provenance import Guidance, Provenance
from qdx.exporter.calibrate.ranges import GraphRanges, Ranges
from qdx.exporter.calibrate.taps import Recorder
from qdx.exporter.calibrate.timesteps import boundaries_for, group_of, timestep_of
from qdx.exporter.calibrate.weight_cache import WeightCache
from qdx.exporter.capture.arguments import complete_call, load_images
from qdx.exporter.capture.materialize import fill_weights
from qdx.exporter.capture.pipeline_errors import pipeline_errors
from qdx.exporter.capture.recorded_call import record_call
from qdx.exporter.capture.skeleton import build_skeleton
from qdx.exporter.errors import UsageError, quoted
from qdx.exporter.graph.safetensors_file import open_checkpoint
from qdx.exporter.graph.weights import load_buffers
from qdx.exporter.progress import SILENT
from qdx.prompts import prompts_record, read_prompts, sample_calls
from qdx.rehearsal import MethodSchedule, rehearse
from qdx.runtime.graph_runner import GraphRunner
from qdx.runtime.methods import TargetMethod
from qdx.runtime.pipeline import attach

if TYPE_CHECKING:
    from qdx.exporter.capture.folder import PipelineFolder
    from qdx.exporter.capture.skeleton import Skeleton
    from qdx.exporter.graph.graph import Graph
    from qdx.exporter.graph.site import Site
    from qdx.exporter.plan.settings import Calibration
    from qdx.exporter.plan.timestep_groups import RecordedGroups
    from qdx.exporter.progress import Progress, Task

__all__ = ["Observer", "calibrate", "read_prompts"]

Observer = Callable[[str, int, Mapping[str, NDArray[Any]]], None]
"""Told of a call before it runs: `component.method`, the group of its timestep, and its inputs by name."""


def calibrate(
    folder: PipelineFolder,
    graphs: Mapping[str, Graph],
    sites: Mapping[str, Sequence[Site]],
    *,
    call: dict[str, Any],
    settings: Calibration,
    digests: Mapping[str, str],
    prompts: Sequence[str] | None = None,
    threads: int = 1,
    progress: Progress = SILENT,
    task_name: str = "calibrating",
    observer: Observer | None = None,
    check: Callable[[RecordedGroups], None] | None = None,
) -> Ranges:
    """Records the ranges of every site's inputs and output over real runs of the pipeline.

    The same arguments give the same ranges to the bit, in any process, on any number of processors.

    Args:
        folder: The pipeline.
        graphs: Its graphs by `component.method`, with the static shapes that `call` leads to. A component
            without any computes in PyTorch, with its weights in memory.
        sites: What to observe, likewise; a graph without sites only computes.
        call: Arguments of the pipeline call as the user gave them. Steps that neither they nor the settings
            tell are the pipeline's own default.
        settings: Number of samples, steps, seeds, groups of timesteps and branches of guidance.
        digests: SHA-256 of the model's files by relative path, for the provenance.
        prompts: Each sample takes as many as the call's own prompt is long, from the first on and round
            again; None keeps the call's prompt, so that samples differ in noise alone.
        threads: Threads that PyTorch computes with. Another number may change the last bits.
        progress: Told of every call of a component.
        task_name: What it is told that this is.
        observer: Told of every call of a graph. The arrays are the pipeline's: they change after the call.
        check: Told of the groups of timesteps that will be recorded, before anything computes; what it
            raises ends the calibration.

    Raises:
        UsageError: The pipeline takes no prompts, no number of steps, or not this call.
        InvalidModel: An activation is NaN or infinite, or the pipeline does not run.
    """
    skeleton = build_skeleton(folder)
    call = load_images(call)
    full = _full_call(skeleton, call, settings)
    calls = sample_calls(full, settings.samples, prompts)
    inputs = {where: {spec.name for spec in graph.inputs} for where, graph in graphs.items()}
    with _threads(threads):
        with progress.task("rehearsing the schedule"):
            _read_buffers(skeleton, graphs)
            plan = rehearse(skeleton, calls[0], inputs)
        groups = _Groups.of(graphs, plan.methods, settings)
        if check is not None:
            check(groups)
        for name in plan.components - {graph.component for graph in graphs.values()}:
            fill_weights(skeleton.modules[name], skeleton, name)
        runs = _runs(graphs, sites, plan.methods, groups, settings, observer)
        total = plan.times_called * len(calls)
        with progress.task(task_name, total) as task, _attached(skeleton, runs, plan.methods):
            for number, one in enumerate(calls):
                for run in runs.values():
                    run.begin(task, f"sample {number + 1}{_words(one, prompts)}")
                _call(skeleton, one, settings.seed + number)
    provenance = Provenance(
        qdx=qdx.__version__,
        torch=str(torch.__version__),
        threads=threads,
        pipeline_class=folder.pipeline_class,
        files=dict(sorted(digests.items())),
        call=record_call(call),
        samples=settings.samples,
        steps=settings.steps,
        seed=settings.seed,
        prompts=prompts_record(calls, prompts),
        branches=settings.branches,
        guidance={
            where: Guidance(copies=run.guidance.copies, calls=run.guidance.calls)
            for where, run in runs.items()
            if run.schedule is not None and run.schedule.input is not None
        },
    )
    return Ranges({where: run.finish() for where, run in runs.items()}, provenance)


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


@dataclass
class _Run(GraphRunner):
    """A graph in the place of a component's method: computes, and tells its recorder what it is at."""

    recorder: Recorder
    guidance: GuidanceTracker
    schedule: MethodSchedule | None
    boundaries: tuple[float, ...]
    observer: Observer | None = None
    sample: str = ""
    task: Task | None = None

    def begin(self, task: Task, sample: str) -> None:
        """Starts the next sample."""
        self.task, self.sample = task, sample

    def run(self, inputs: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        """Runs the graph once."""
        group, rows, occasion = 0, ALL_ROWS, self.sample
        if self.schedule is not None and self.schedule.input is not None:
            timestep = timestep_of(inputs[self.schedule.input])
            group = group_of(timestep, self.boundaries)
            rows = self.guidance.rows(timestep, inputs, self.graph.where)
            occasion = f"timestep {timestep:g} of {self.sample}"
        if self.observer is not None:
            arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
            self.observer(self.graph.where, group, arrays)
        found = self.recorder.run(inputs, group=group, rows=rows, occasion=occasion)
        if self.task is not None:
            self.task.advance()
        return found

    def finish(self) -> GraphRanges:
        """What was recorded."""
        timesteps = self.schedule.timesteps if self.schedule is not None else ()
        timestep_input = self.schedule.input if self.schedule is not None else None
        ports = {key: dict(ports) for key, ports in self.recorder.ports.items()}
        tensors = self.recorder.finish()
        return GraphRanges(
            timesteps, self.boundaries, tensors, ports, timestep_input=timestep_input
        )


def _runs(
    graphs: Mapping[str, Graph],
    sites: Mapping[str, Sequence[Site]],
    schedules: Mapping[str, MethodSchedule],
    groups: _Groups,
    settings: Calibration,
    observer: Observer | None,
) -> dict[str, _Run]:
    cache = WeightCache()
    runs: dict[str, _Run] = {}
    for where, graph in graphs.items():
        boundaries = groups.groups(where)
        kept = cache.attach(graph)
        recorder = Recorder(kept, sites.get(where, ()), len(boundaries) + 1)
        tracker = GuidanceTracker(settings.branches)
        runs[where] = _Run(kept, recorder, tracker, schedules.get(where), boundaries, observer)
    return runs


@contextmanager
def _attached(
    skeleton: Skeleton, runs: Mapping[str, _Run], schedules: Mapping[str, MethodSchedule]
) -> Iterator[None]:
    """The pipeline with its graphs in place of its components."""
    methods = {
        where: TargetMethod(
            where,
            tuple(
                InputPort(argument=s.name, name=s.name, dtype=s.dtype, shape=s.shape)  # type: ignore[arg-type]
                for s in run.graph.inputs
            ),
            tuple(
                OutputPort(field=s.name, name=s.name, dtype=s.dtype, shape=s.shape)  # type: ignore[arg-type]
                for s in run.graph.outputs
            ),
            schedules[where].constants if where in schedules else {},
            run,
        )
        for where, run in runs.items()
    }
    undo: Callable[[], None] = attach(skeleton, methods)
    try:
        yield
    finally:
        undo()


def _full_call(skeleton: Skeleton, call: dict[str, Any], settings: Calibration) -> dict[str, Any]:
    """The call with everything that a run needs, and as many steps as the settings say."""
    parameters = inspect.signature(skeleton.pipeline.__call__).parameters
    full = complete_call(skeleton.pipeline, call)
    name = "num_inference_steps"
    if name not in parameters:
        if settings.steps is not None:
            raise UsageError(
                f"calibration: {settings.steps} steps, but {type(skeleton.pipeline).__name__} takes no number of steps",
                hint="leave `steps` out of the plan's calibration",
            )
        return full
    if settings.steps is not None:
        full[name] = settings.steps
    elif name not in call:
        full.pop(name)
    return full


def _words(call: dict[str, Any], prompts: Sequence[str] | None) -> str:
    return "" if prompts is None else f", prompt {quoted(call['prompt'])}"


def _read_buffers(skeleton: Skeleton, graphs: Mapping[str, Graph]) -> None:
    """Gives modules the stored buffers that the pipeline's Python may read, such as latent means."""
    for name in dict.fromkeys(graph.component for graph in graphs.values()):
        load_buffers(skeleton.modules[name], open_checkpoint(skeleton.folder.components[name].path))


def _call(skeleton: Skeleton, call: dict[str, Any], seed: int) -> None:
    """Calls the pipeline with the noise of a seed; what it makes is not kept."""
    arguments = dict(call)
    if "generator" in inspect.signature(skeleton.pipeline.__call__).parameters:
        arguments["generator"] = torch.Generator("cpu").manual_seed(seed)
    name = skeleton.folder.pipeline_class
    errors = pipeline_errors(
        skeleton.folder,
        rejected=f"calibration: {name} rejects the call",
        failed=f"calibration: {name} failed",
        call_hint="give arguments with --call and prompts with --calib that the pipeline takes",
        model_hint="check that the folder makes pictures in diffusers with this call",
    )
    # Some pipelines also draw from the global state.
    with errors, torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        skeleton.pipeline(**arguments)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Computes with this many threads: partial sums, and so the last bits, depend on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
