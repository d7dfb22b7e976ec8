"""Following errors over whole runs as a part of an analysis: what one pipeline does not allow does not end it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from qdx.analyze.ablations import Ablator, parts_of
from qdx.analyze.backward_memory import workers_for
from qdx.analyze.course import record_course
from qdx.analyze.courses import CourseRunner, cannot_follow
from qdx.analyze.effort import affordable
from qdx.analyze.trajectory import PROBES, SEGMENTS, Follower
from qdx.analyze.trajectory_data import Missing, Trajectory
from qdx.analyze.trajectory_section import section_of, steps_of_calls
from qdx.analyze.treatments import everywhere, half
from qdx.exporter.cost.activations import kept_activation_bytes
from qdx.exporter.errors import InvalidModel, TargetRefusal, UsageError

if TYPE_CHECKING:
    from qdx.analyze.ablation_data import Ablations
    from qdx.analyze.analysis import Analysis
    from qdx.analyze.calls import Runs
    from qdx.analyze.survey import Survey
    from qdx.exporter.progress import Progress

__all__ = ["Follow"]

RUNS: Final = 2
"""Runs that are followed at most."""
_ABLATED: Final = 3
"""Options of which parts are left float where nobody asks for all: each costs a run for every part."""
_RUNS_OF_AN_OPTION: Final = 10
"""What following an option over a run costs, in float runs: two of its own, about four forward with derivatives, three back
from the end, and segments."""
_NOT_FOLLOWED: Final = (TargetRefusal, InvalidModel, UsageError)
"""What a pipeline's own Python does not allow; it does not end the analysis."""


@dataclass(frozen=True)
class Follow:
    """What goes over whole runs.

    Attributes:
        survey: Of the denoisers.
        runs: Of the pipeline.
        analysis: With noise.
        place: A folder that keeps results.
        workers: Runs of options at a time.
        progress: Told of every measurement, and why there are none.
        all_options: Whether every option is followed, and parts of every one left float; else as many as are affordable, the
            noisiest first.
    """

    survey: Survey = field(repr=False)
    runs: Runs = field(repr=False)
    analysis: Analysis = field(repr=False)
    place: Path
    workers: int
    progress: Progress = field(repr=False)
    all_options: bool

    def trajectory(self) -> Trajectory | Missing:
        """Follows options, and float16; or says why the pipeline cannot be followed."""
        samples = min(RUNS, self.runs.settings.samples)
        work = _RUNS_OF_AN_OPTION * self._macs_of_run
        options = self._chosen(samples * work)
        if len(options) < len(self.analysis.options) - 1:
            samples, options = 1, self._chosen(work)
        labels = {one.id: one.label for one in self.analysis.options}
        treatments = [everywhere(self.survey, one, labels[one]) for one in options]
        treatments.append(half(self.survey))
        try:
            seed = self.runs.settings.seed
            follower = Follower(self.survey, self._runner, treatments, samples, seed)
            graphs = self.survey.prepared.traced.values()
            workers = workers_for(max(map(kept_activation_bytes, graphs), default=0), self.workers)
            rows = follower.run(self.place / "trajectory", workers=workers, progress=self.progress)
        except _NOT_FOLLOWED as bad:
            self.progress.say(f"errors are not followed over runs: {bad.message}")
            return Missing(why_not=bad.message)
        return section_of(
            rows,
            treatments,
            samples=samples,
            segments=SEGMENTS,
            probes=PROBES,
            steps=steps_of_calls(self.runs.calls),
        )

    def ablations(self) -> Ablations:
        """Leaves parts float, one after the other."""
        why, runner = "", None
        try:
            runner = self._runner
            record_course(runner, 0, self.survey.prepared.traced)
        except _NOT_FOLLOWED as bad:
            why, runner = bad.message, None
        parts = len(parts_of(self.analysis.groups, segments=SEGMENTS))
        options = self._chosen(2 * parts * self._macs_of_run, most=_ABLATED)
        ablator = Ablator(self.survey, self.analysis.groups, options, runner, SEGMENTS)
        found = ablator.run(self.place / "ablations", workers=self.workers, progress=self.progress)
        return ablator.section(found, why)

    @cached_property
    def _runner(self) -> CourseRunner:
        if not any(one.moment.timestep is not None for one in self.survey.recorded):
            raise cannot_follow("nothing that was analyzed follows a schedule of timesteps")
        return CourseRunner.of(self.runs)

    @property
    def _macs_of_run(self) -> int:
        """Multiply-accumulates of the analyzed graphs in one run."""
        macs = dict.fromkeys(self.analysis.wheres, 0)
        for group in self.analysis.groups:
            macs[group.where] += group.macs
        return sum(macs.get(where, 0) for where, _ in self.runs.calls)

    def _chosen(self, macs: int, most: int | None = None) -> list[int]:
        """Options in their order: all, or the affordable ones, the noisiest of those with inputs and without in turns."""
        found = [one.id for one in self.analysis.options[1:]]
        count = len(found) if self.all_options else affordable(macs, most or len(found))
        noise = {one: self._noise(one) for one in found}
        ranked = sorted(
            found,
            key=lambda one: (
                sum(
                    noise[other] > noise[one]
                    for other in found
                    if self._reads_inputs(other) == self._reads_inputs(one)
                ),
                one,
            ),
        )
        return sorted(ranked[:count])

    def _reads_inputs(self, option: int) -> bool:
        return self.analysis.options[option].inputs is not None

    def _noise(self, option: int) -> float:
        rows = [row for row in self.analysis.noise.cumulative if row.option == option]
        return sum(row.prediction or 0.0 for row in rows)
