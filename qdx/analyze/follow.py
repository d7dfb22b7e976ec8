"""Following errors over whole runs as a part of an analysis: what one pipeline does not allow does not end it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from qdx.analyze.courses import CourseRunner, cannot_follow
from qdx.analyze.trajectory import PROBES, SEGMENTS, Follower
from qdx.analyze.trajectory_data import Missing, Trajectory
from qdx.analyze.trajectory_section import section_of, steps_of_calls
from qdx.exporter.errors import InvalidModel, TargetRefusal, UsageError

if TYPE_CHECKING:
    from qdx.analyze.calls import Runs
    from qdx.analyze.survey import Survey
    from qdx.analyze.treatments import Treatment
    from qdx.exporter.progress import Progress

__all__ = ["RUNS", "followed", "runner_of"]

RUNS: Final = 2
"""Runs that are followed at most: each option costs about ten float runs in each."""


def followed(
    survey: Survey,
    runs: Runs,
    treatments: Sequence[Treatment],
    folder: Path,
    *,
    workers: int,
    progress: Progress,
) -> Trajectory | Missing:
    """Follows treatments over runs.

    Args:
        survey: Of the denoisers.
        runs: Of the pipeline.
        treatments: What is followed.
        folder: Keeps results.
        workers: Runs of options at a time.
        progress: Told of every measurement, and why there are none.

    Returns:
        What was found; or why the pipeline cannot be followed.
    """
    samples = min(RUNS, runs.settings.samples)
    try:
        follower = Follower(
            survey, runner_of(survey, runs), treatments, samples, runs.settings.seed
        )
        rows = follower.run(folder, workers=workers, progress=progress)
        return section_of(
            rows,
            treatments,
            samples=samples,
            segments=SEGMENTS,
            probes=PROBES,
            steps=steps_of_calls(runs.calls),
        )
    except (TargetRefusal, InvalidModel, UsageError) as bad:
        progress.say(f"errors are not followed over runs: {bad.message}")
        return Missing(why_not=bad.message)


def runner_of(survey: Survey, runs: Runs) -> CourseRunner:
    """What runs the pipeline.

    Raises:
        TargetRefusal: Nothing that was analyzed denoises.
    """
    if not any(one.moment.timestep is not None for one in survey.recorded):
        raise cannot_follow("nothing that was analyzed follows a schedule of timesteps")
    return CourseRunner.of(runs)
