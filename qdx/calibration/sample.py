"""One sample of calibration: one call of the pipeline, with graphs in place of its components."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import torch
from numpy.typing import NDArray

from qdx.calibration.checkpoint import KeptAnswers, SampleCheckpoint
from qdx.exporter.calibrate.guidance import ALL_ROWS, GuidanceTracker, Rows
from qdx.exporter.calibrate.provenance import Guidance, Provenance
from qdx.exporter.calibrate.ranges import GraphRanges, Ranges
from qdx.exporter.calibrate.taps import Recorder
from qdx.exporter.calibrate.timesteps import group_of, timestep_of
from qdx.exporter.capture.pipeline_errors import pipeline_errors
from qdx.exporter.devices import CPU
from qdx.exporter.errors import QdxError, StorageError
from qdx.exporter.graph.execute.interpreter import Executor
from qdx.runtime.generate import call_pipeline
from qdx.runtime.graph_runner import method_of
from qdx.runtime.pipeline import attach

if TYPE_CHECKING:
    from qdx.calibration.workers import Tell
    from qdx.exporter.capture.skeleton import Skeleton
    from qdx.exporter.graph.ir.graph import Graph, TensorSpec
    from qdx.exporter.graph.ir.site import Site
    from qdx.exporter.plan.schema.settings import Calibration
    from qdx.runtime.methods import TargetMethod
    from qdx.source.schedule import MethodSchedule, Rehearsal

__all__ = ["Observer", "Sample", "SampleJob", "no_checkpoints"]

Observer = Callable[[str, int, Mapping[str, NDArray[Any]]], None]
"""Told of a call before it runs: `component.method`, the group of its timestep, and its inputs by name."""

_KEEP_EVERY_S: Final = 20.0
"""Statistics are kept no more often: they can be hundreds of megabytes."""
_KEEP_RATIO: Final = 20.0
"""Nor more often than so many times of what keeping them takes."""


class _Enough(BaseException):
    """Nothing that is still to come is observed: unwinds the pipeline's own Python."""


class _Defect(BaseException):
    """A graph failed otherwise than graphs can: unwinds the pipeline's own Python, whose fault it is not."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass(frozen=True)
class SampleJob:
    """What all samples share.

    Attributes:
        skeleton: The pipeline; what has no graph computes in PyTorch.
        graphs: By `component.method`, what computes where nothing is observed.
        observed_graphs: The form in which a graph is observed, of those that have sites.
        sites: What is observed of it.
        rehearsal: The calls of one sample, in order.
        boundaries: Between groups of timesteps, by graph.
        steps: Of every sample, the numbers of the steps that are observed.
        settings: Of the calibration.
        provenance: Of what is recorded, without guidance.
        device: Where graphs compute.
        observer: Told of every call of a graph; None for nobody. Then every sample runs to its end.
    """

    skeleton: Skeleton
    graphs: Mapping[str, Graph] = field(repr=False)
    observed_graphs: Mapping[str, Graph] = field(repr=False)
    sites: Mapping[str, Sequence[Site]] = field(repr=False)
    rehearsal: Rehearsal = field(repr=False)
    boundaries: Mapping[str, tuple[float, ...]]
    steps: Mapping[str, Sequence[AbstractSet[int]]]
    settings: Calibration
    provenance: Provenance
    device: torch.device = CPU
    observer: Observer | None = None

    def observes(self, sample: int, where: str, timestep: float | None) -> bool:
        """Whether a call is observed: one of a step that was chosen, or one that belongs to no step."""
        if where not in self.observed_graphs:
            return False
        schedule = self.rehearsal.methods.get(where)
        if schedule is None or timestep is None or timestep not in schedule.timesteps:
            return True
        return schedule.timesteps.index(timestep) in self.steps[where][sample]

    def calls(self, sample: int) -> tuple[bool, ...]:
        """Whether each call of a sample is observed, up to the last one that is; none of a sample without any."""
        made = [self.observes(sample, *call) for call in self.rehearsal.calls]
        if self.observer is not None:
            return tuple(made)
        return tuple(made[: len(made) - made[::-1].index(True)]) if any(made) else ()


class Sample:
    """One sample under way.

    Args:
        job: What all samples share.
        number: Of the sample, from 0.
        call: Arguments of the pipeline, complete.
        name: For messages, such as `sample 1, prompt "a cat"`.
        checkpoint: Where it is kept.
        spare: Makes another such place, for the statistics alone, should that one have no room.
        trajectory: What another calibration of the same sample, with the graphs as they are, was answered: it leads
            from step to step here too, and what is not observed is then not computed. What it lacks is computed so.
        tell: Told of every call.
    """

    def __init__(
        self,
        job: SampleJob,
        number: int,
        call: dict[str, Any],
        name: str,
        checkpoint: SampleCheckpoint,
        spare: Callable[[], SampleCheckpoint],
        trajectory: KeptAnswers | None,
        tell: Tell,
    ) -> None:
        self._job = job
        self._number = number
        self._call = call
        self._name = name
        self._checkpoint = checkpoint
        self._spare = spare
        self._trajectory = trajectory
        self._tell = tell
        self._next = 0
        self._length = len(job.calls(number))
        self._runs = {where: _Run(job, where, self._answered) for where in job.graphs}
        self._no_room = False
        self._kept_at = time.monotonic()
        self._pause_s = _KEEP_EVERY_S
        self._done = -1
        kept = checkpoint.observed()
        if kept is not None:
            self._done, ranges = kept
            for where, run in self._runs.items():
                run.restore(ranges.graphs[where])

    def run(self) -> None:
        """Runs the pipeline and keeps what was recorded in the checkpoint.

        Raises:
            UsageError: The pipeline does not take the call.
            InvalidModel: An activation is NaN or infinite, or the pipeline does not run.
            StorageError: The disk refused.
        """
        skeleton = self._job.skeleton
        methods = {where: run.as_method() for where, run in self._runs.items()}
        undo = attach(skeleton, methods)
        try:
            _call_pipeline(skeleton, self._call, self._job.settings.seed + self._number)
        except _Enough:
            pass
        except _Defect as defect:
            raise defect.error from None
        finally:
            undo()
        ranges = self._ranges()
        # Each refers to this sample: without them the next sample's statistics do not meet these in memory.
        self._runs.clear()
        if not self._keep(lambda: self._checkpoint.keep_finished(ranges)):
            self._spare().keep_finished(ranges)

    def _answered(
        self, run: _Run, inputs: Mapping[str, torch.Tensor]
    ) -> Mapping[str, torch.Tensor]:
        """What a component answers to its next call."""
        number = self._next
        self._next += 1
        moment = run.moment(inputs, self._name)
        observed = self._job.observes(self._number, run.where, moment.timestep)
        is_last = number + 1 == self._length and self._job.observer is None
        start = time.perf_counter()
        kept = self._checkpoint.answer(number)
        answer = kept
        if answer is None and self._trajectory is not None:
            answer = self._trajectory.answer(number)
        is_new = observed and number > self._done
        replayed = answer is not None and not is_new
        if is_new:
            found = run.observe(inputs, moment)
            # Where the graphs as they are lead, their answer is wanted, not that of the form that is observed.
            if answer is None and (self._trajectory is None or is_last):
                answer = found
        if answer is None:
            answer = run.compute(inputs)
        if kept is None:
            self._keep(lambda: self._checkpoint.keep_answer(number, answer))
        self._tell(
            {
                "where": run.where,
                "observed": observed,
                "replayed": replayed,
                "seconds": time.perf_counter() - start,
            }
        )
        if is_last:
            raise _Enough
        if is_new and time.monotonic() - self._kept_at >= self._pause_s:
            self._keep_observed(number)
        return answer

    def _keep_observed(self, number: int) -> None:
        """Keeps the statistics after a call, and finds out how often that may be."""
        start = time.monotonic()
        self._keep(lambda: self._checkpoint.keep_observed(number, self._ranges()))
        self._kept_at = time.monotonic()
        self._pause_s = max(_KEEP_EVERY_S, _KEEP_RATIO * (self._kept_at - start))

    def _keep(self, write: Callable[[], None]) -> bool:
        """Keeps something for a later run; without room for it the sample goes on, says so once, and returns False."""
        if self._no_room:
            return False
        try:
            write()
        except StorageError as full:
            self._no_room = True
            self._tell({"say": no_checkpoints(full)})
        return not self._no_room

    def _ranges(self) -> Ranges:
        guidance = {
            where: Guidance(copies=run.guidance.copies, calls=run.guidance.calls)
            for where, run in self._runs.items()
            if run.takes_timesteps
        }
        provenance = self._job.provenance.model_copy(update={"guidance": guidance})
        return Ranges({where: run.finish() for where, run in self._runs.items()}, provenance)


@dataclass(frozen=True)
class _Moment:
    """When a call is made: its timestep, the group of it, the part of the batch that counts, and words for it."""

    timestep: float | None
    group: int
    rows: Rows
    occasion: str


class _Run:
    """A graph in the place of a component's method, with its statistics."""

    def __init__(
        self,
        job: SampleJob,
        where: str,
        answer: Callable[[_Run, Mapping[str, torch.Tensor]], Mapping[str, torch.Tensor]],
    ) -> None:
        self.where = where
        self.guidance = GuidanceTracker(job.settings.branches)
        self._graph = job.graphs[where]
        self._answer = answer
        self._observer = job.observer
        self._schedule: MethodSchedule | None = job.rehearsal.methods.get(where)
        self._boundaries = job.boundaries[where]
        self._device = job.device
        self._executor: Executor | None = None
        observed = job.observed_graphs.get(where)
        groups = len(self._boundaries) + 1
        self._recorder = Recorder(
            observed or self._graph, job.sites.get(where, ()), groups, job.device
        )

    @property
    def takes_timesteps(self) -> bool:
        """Whether its calls follow a schedule."""
        return self._schedule is not None and self._schedule.input is not None

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """As the graph declares them."""
        return self._graph.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """As the graph declares them."""
        return self._graph.outputs

    def as_method(self) -> TargetMethod:
        """What takes the component's place in the pipeline."""
        constants = {} if self._schedule is None else self._schedule.constants
        return method_of(self._graph, constants, self)

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Answers a call of the pipeline."""
        tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
        try:
            answer = self._answer(self, tensors)
        except RuntimeError as error:
            if _is_out_of_memory(error):
                raise MemoryError from error
            raise  # what a graph cannot compute; the pipeline gave it something else than in the dry run
        except (QdxError, MemoryError, OSError):
            raise
        except Exception as error:
            raise _Defect(error) from error
        return {name: value.numpy() for name, value in answer.items()}

    def moment(self, inputs: Mapping[str, torch.Tensor], name: str) -> _Moment:
        """When this call is made."""
        if self._schedule is None or self._schedule.input is None:
            moment = _Moment(None, 0, ALL_ROWS, name)
        else:
            timestep = timestep_of(inputs[self._schedule.input])
            group = group_of(timestep, self._boundaries)
            rows = self.guidance.rows(timestep, inputs, self.where)
            moment = _Moment(timestep, group, rows, f"timestep {timestep:g} of {name}")
        if self._observer is not None:
            self._observer(self.where, moment.group, {n: t.numpy() for n, t in inputs.items()})
        return moment

    def compute(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Runs the graph."""
        if self._executor is None:
            self._executor = Executor(self._graph, self._device)
        return self._executor.run(inputs)

    def observe(
        self, inputs: Mapping[str, torch.Tensor], moment: _Moment
    ) -> dict[str, torch.Tensor]:
        """Runs the graph and takes its statistics."""
        return self._recorder.run(
            inputs, group=moment.group, rows=moment.rows, occasion=moment.occasion
        )

    def restore(self, found: GraphRanges) -> None:
        """Goes on from statistics that were kept."""
        self._recorder.restore(found.tensors)

    def finish(self) -> GraphRanges:
        """What was recorded."""
        timesteps = self._schedule.timesteps if self._schedule is not None else ()
        timestep_input = self._schedule.input if self._schedule is not None else None
        ports = {key: dict(ports) for key, ports in self._recorder.ports.items()}
        tensors = self._recorder.finish()
        return GraphRanges(
            timesteps, self._boundaries, tensors, ports, timestep_input=timestep_input
        )


def no_checkpoints(full: StorageError) -> str:
    """Words for a disk that takes no more."""
    reason = full.__cause__.strerror if isinstance(full.__cause__, OSError) else None
    return f"calibration: continues without checkpoints: {reason or full.message}"


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Whether it is PyTorch's way to say that memory ran out."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def _call_pipeline(skeleton: Skeleton, call: dict[str, Any], seed: int) -> None:
    """Calls the pipeline with the noise of a seed; what it makes is not kept."""
    name = skeleton.folder.pipeline_class
    errors = pipeline_errors(
        skeleton.folder,
        rejected=f"calibration: {name} rejects the call",
        failed=f"calibration: {name} failed",
        call_hint="give arguments with --call and prompts with --calib that the pipeline takes",
        model_hint="check that the folder generates images in diffusers with this call",
    )
    with errors:
        call_pipeline(skeleton.pipeline, call, seed=seed)
