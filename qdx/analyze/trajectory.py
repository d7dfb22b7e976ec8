"""What errors of single steps become over whole runs: a job for each run and option, kept as they come.

A job computes, of one run: the local errors of every call on the float trajectory; what products with Jacobians make of them
at the end; the free run; and, back from the end, the share of every call. All of it is told by `course`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from qdx.analyze.course import FloatCourse, record_course
from qdx.analyze.gaussian import Unknown, marginals_of
from qdx.analyze.noise import relative_noise
from qdx.analyze.pictures import figures_of
from qdx.cache.keys import key_of
from qdx.exporter.errors import InvalidInput
from qdx.exporter.files import parse_json
from qdx.exporter.strict_json import dump_json
from qdx.sweep.jobs import Shown, run_shown
from qdx.sweep.results import Outcome, Results
from qdx.sweep.workers import Words

if TYPE_CHECKING:
    from torch import Tensor

    from qdx.analyze.course import Errors, FreeRun
    from qdx.analyze.courses import CourseRunner
    from qdx.analyze.survey import Survey
    from qdx.analyze.treatments import Treatment
    from qdx.exporter.progress import Progress
    from qdx.sweep.jobs import Found

__all__ = ["PROBES", "SEGMENTS", "Follower", "Row", "segments_of"]

PROBES: Final = 4
"""Random vectors at the end of a run; the mean of their squares varies by about sqrt(2 / PROBES) at most, and less where
many directions of an error are as good as each other."""
SEGMENTS: Final = 5
"""Parts of a schedule that are measured by themselves."""
_WORDS: Final = Words("analysis", "run")
Row = Mapping[str, Any]
"""What a job found, as plain JSON data."""


@dataclass(frozen=True)
class _Job:
    key: str
    sample: int
    kind: str
    treatment: int | None = None
    segment: int | None = None


@dataclass(frozen=True)
class Follower:
    """Follows treatments over runs.

    Attributes:
        survey: Of the denoisers.
        runner: The pipeline.
        treatments: What is followed.
        samples: How many runs, the first ones.
        seed: Of the random directions.
    """

    survey: Survey = field(repr=False)
    runner: CourseRunner = field(repr=False)
    treatments: Sequence[Treatment] = field(repr=False)
    samples: int
    seed: int = 0

    def run(self, folder: Path, *, workers: int, progress: Progress) -> Mapping[str, Row]:
        """Follows what is not known yet.

        Args:
            folder: Keeps results.
            workers: Options of a run at a time.
            progress: Told of every measurement.

        Returns:
            What jobs found, by name: `gains.0`, `option.0.2`, `segment.0.2.1`; segments of the first run alone.
        """
        results = Results(folder)
        by_key = {job.key: job for job in self._jobs}
        parts: dict[tuple[int, int | None], list[str]] = {}
        for job in self._jobs:
            parts.setdefault((job.sample, job.treatment), []).append(job.key)

        def compute(_: int, keys: Sequence[str], found: Found) -> None:
            course = self._course(by_key[keys[0]].sample)
            for key in keys:
                found(key, Outcome((), dump_json(self._row(course, by_key[key]), indent=None)))

        run_shown(
            list(parts.values()),
            compute,
            results,
            words=_WORDS,
            workers=workers,
            shown=Shown(progress, "following errors over runs"),
        )
        return {
            ".".join(str(n) for n in (j.kind, j.sample, j.treatment, j.segment) if n is not None):
            parse_json(results.known[j.key].data.decode(), source="a result", error=InvalidInput)
            for j in self._jobs
        }  # fmt: skip

    @cached_property
    def _jobs(self) -> tuple[_Job, ...]:
        found = []
        for sample in range(self.samples):
            found.append(self._job(sample, "gains"))
            for treatment in range(len(self.treatments)):
                found.append(self._job(sample, "option", treatment))
                segments = range(SEGMENTS) if sample == 0 else ()  # each costs half a run
                found += [self._job(sample, "segment", treatment, n) for n in segments]
        return tuple(found)

    def _job(
        self, sample: int, kind: str, treatment: int | None = None, segment: int | None = None
    ) -> _Job:
        key = key_of({
            "job": f"qdx.trajectory.{kind}/1",
            "facts": self.survey.facts,
            "sample": sample,
            "graphs": [*sorted(self.survey.bound)],
            "treatment": None if treatment is None else self.treatments[treatment].identity,
            "segment": segment,
            "seed": self.seed,
            "probes": PROBES,
        })  # fmt: skip
        return _Job(key, sample, kind, treatment, segment)

    def _course(self, sample: int) -> FloatCourse:
        prepared = self.survey.prepared
        graphs = {
            where: prepared.cache.attach(prepared.traced[where]) for where in self.survey.bound
        }
        return record_course(self.runner, sample, graphs)

    def _row(self, course: FloatCourse, job: _Job) -> Row:
        if job.treatment is None:
            return _gains(course, self.seed + job.sample)
        compute = self.treatments[job.treatment].make()
        if job.segment is None:
            return _followed(course, course.local_errors(compute), course.free(compute))
        steps = segments_of(course.steps)
        if job.segment >= len(steps):
            return {"steps": None}
        chosen = steps[job.segment]
        figures = figures_of(course, course.free(compute, chosen))
        return {"steps": [chosen.start, chosen.stop], **figures}


def segments_of(steps: int) -> tuple[range, ...]:
    """Parts of a schedule, as equal as they can be: five, or one for each step where there are fewer."""
    count = min(SEGMENTS, steps)
    return tuple(range(n * steps // count, (n + 1) * steps // count) for n in range(count))


def _gains(course: FloatCourse, seed: int) -> Row:
    generator = torch.Generator().manual_seed(seed)
    final = course.latents[-1]
    signs = [
        torch.randint(0, 2, final.shape, generator=generator).mul(2).sub(1).to(final.dtype)
        for _ in range(PROBES)
    ]
    sums = [0.0] * course.steps
    elements = [1] * course.steps
    for _, predictions in course.backward(signs):
        for step, one in predictions.items():
            sums[step] += float(one.double().square().sum())
            elements[step] = one.numel()
    # E|J^T v|^2 is the squared Frobenius norm; over the elements, the mean of |J e|^2 over unit e.
    return {
        "timesteps": list(course.timesteps),
        "sampler": type(course.scheduler).__name__,
        "gains": [
            math.sqrt(total / PROBES / count) for total, count in zip(sums, elements, strict=True)
        ],
    }


def _followed(course: FloatCourse, errors: Errors, free: FreeRun) -> Row:
    linear = course.propagated(errors)
    guided = course.guided_errors(errors)
    squares = [float(one.double().square().sum()) for one in guided]
    timesteps = [one for one in course.timesteps if one is not None]
    marginals = (
        marginals_of(course.scheduler, timesteps)
        if len(timesteps) == course.steps
        else Unknown("its steps have no single timesteps")
    )
    steps = []
    for step, (told, before, after) in enumerate(
        zip(linear, course.latents, free.latents, strict=True)
    ):
        actual = (after - before).double()
        steps.append({
            "divergence": None if isinstance(marginals, Unknown)
            else marginals.divergence(step, squares[step]),
            "norm_ratio": _ratio(told.double(), actual),
            "correlation": _cosine(told.double(), actual),
            "latents_noise": _finite(relative_noise(before, after)),
        })  # fmt: skip
    shares = _shares(course, errors, linear[-1])
    calls = []
    for place in course.denoising:
        one = course.made[place]
        noise = [relative_noise(v, v + errors[place][name]) for name, v in one.outputs.items()]
        error = torch.cat([e.double().flatten() for e in errors[place].values()])
        calls.append({
            "where": one.where,
            "number": one.number,
            "noise": sum(noise) / len(noise),
            "loss_penalty": float(error.square().mean()),
            "share": shares[place],
        })  # fmt: skip
    return {
        "why_no_divergence": marginals.why if isinstance(marginals, Unknown) else "",
        "steps": steps,
        "calls": calls,
        **figures_of(course, free),
    }


def _shares(course: FloatCourse, errors: Errors, final: Tensor) -> Mapping[int, float]:
    """<J e, E> / ||E||^2 of every call; zeros where E is."""
    square = float(final.double().square().sum())
    if not square:
        return dict.fromkeys(course.denoising, 0.0)
    ((answers, _),) = course.backward([final])
    return {
        place: sum(
            float((answers[place][name].double() * error.double()).sum())
            for name, error in errors[place].items()
        )
        / square
        if place in answers
        else 0.0
        for place in course.denoising
    }


def _ratio(told: Tensor, actual: Tensor) -> float | None:
    norm = float(actual.norm())
    return _finite(float(told.norm()) / norm) if norm else None


def _cosine(told: Tensor, actual: Tensor) -> float | None:
    norms = float(told.norm()) * float(actual.norm())
    if not norms or not math.isfinite(norms):
        return None
    return max(-1.0, min(1.0, float((told * actual).sum()) / norms))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
