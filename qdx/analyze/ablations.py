"""Ablations: every option everywhere but for one role, stage, component or segment of the schedule, which stays float."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qdx.analyze.ablation_data import Ablation, Ablations
from qdx.analyze.analysis import MEASURES
from qdx.analyze.course import record_course
from qdx.analyze.noise import Change
from qdx.analyze.pictures import figures_of
from qdx.analyze.trajectory import segments_of
from qdx.analyze.treatments import Quantizing
from qdx.cache.keys import key_of
from qdx.exporter.errors import InvalidInput
from qdx.exporter.files import parse_json
from qdx.exporter.strict_json import dump_json
from qdx.sweep.jobs import Shown, run_shown
from qdx.sweep.results import Outcome, Results
from qdx.sweep.workers import Words

if TYPE_CHECKING:
    from qdx.analyze.ablation_data import Kind
    from qdx.analyze.analysis import Group
    from qdx.analyze.course import FloatCourse
    from qdx.analyze.courses import CourseRunner
    from qdx.analyze.survey import Survey
    from qdx.exporter.progress import Progress
    from qdx.sweep.jobs import Found

__all__ = ["Ablator", "Part", "parts_of"]

_STEPS: Final = 6
"""Measured steps of each graph on which a part is left float, evenly spread."""
_WORDS: Final = Words("analysis", "part")


@dataclass(frozen=True)
class Part:
    """What stays float.

    Attributes:
        kind: What it is one of.
        name: Its name.
        groups: Its groups.
        segment: Its place among the segments of the schedule; None of other kinds.
    """

    kind: Kind
    name: str
    groups: frozenset[int]
    segment: int | None = None


def parts_of(groups: Sequence[Group], *, segments: int) -> tuple[Part, ...]:
    """The parts of a model; without a component that is all of it.

    Args:
        groups: All that were analyzed.
        segments: Of the schedule.
    """
    found: list[Part] = []
    kinds: list[tuple[Kind, Any]] = [
        ("role", lambda one: one.roles),
        ("stage", lambda one: (one.stage,) if one.stage else ()),
        ("component", lambda one: (one.component,)),
    ]
    for kind, names_of in kinds:
        names = sorted({name for one in groups for name in names_of(one)})
        for name in names:
            own = frozenset(one.id for one in groups if name in names_of(one))
            if len(own) < len(groups):
                found.append(Part(kind, name, own))
    everything = frozenset(one.id for one in groups)
    found += [Part("segment", str(n), everything, n) for n in range(segments)]
    return tuple(found)


@dataclass(frozen=True)
class _Job:
    key: str
    option: int
    part: Part | None
    recorded: int | None = None


@dataclass(frozen=True)
class Ablator:
    """The measurements.

    Attributes:
        survey: Of single options.
        groups: Those of the analysis, in order.
        options: What is ablated.
        runner: The pipeline, for free runs; None makes none.
        segments: Of the schedule.
    """

    survey: Survey = field(repr=False)
    groups: Sequence[Group] = field(repr=False)
    options: Sequence[int]
    runner: CourseRunner | None = field(repr=False)
    segments: int

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """What stays float, one after the other."""
        return parts_of(self.groups, segments=self.segments if self.runner is not None else 0)

    def run(self, folder: Path, *, workers: int, progress: Progress) -> Mapping[str, Outcome]:
        """Measures what is not known yet; returns results by key."""
        results = Results(folder)
        known = {job.key: job for job in self._jobs}
        parts: dict[tuple[int | None, int], list[str]] = {}
        for job in self._jobs:
            # Free runs of an option share the float run, calls of a step the float values.
            parts.setdefault((job.recorded, job.option if job.recorded is None else 0), []).append(job.key)  # fmt: skip

        def compute(_: int, keys: Sequence[str], found: Found) -> None:
            recorded = known[keys[0]].recorded
            if recorded is None:
                course = self._course()
                for key in keys:
                    found(key, self._free(course, known[key]))
                return
            bench = self.survey.bench(self.survey.recorded[recorded])
            for key in keys:
                found(key, bench.noise(self._change(known[key])))

        run_shown(
            list(parts.values()),
            compute,
            results,
            words=_WORDS,
            workers=workers,
            shown=Shown(progress, "leaving parts float"),
        )
        return results.known

    def section(self, results: Mapping[str, Outcome], why_no_pictures: str) -> Ablations:
        """The section of an analysis.

        Args:
            results: Of `run`.
            why_no_pictures: Why there are no free runs; empty where there are.
        """
        made = [
            self._row(results, option, part)
            for option in self.options
            for part in self.parts
            if self._kept(option, part) or part.segment is not None
        ]
        rows = [row for row in made if row is not None]
        rows.sort(key=lambda row: (row.option, -_gain(row)))
        return Ablations(
            steps=max(1, len(self._steps)), why_no_pictures=why_no_pictures, rows=tuple(rows)
        )

    @cached_property
    def _steps(self) -> tuple[int, ...]:
        """Places of the steps on which noise is compared."""
        found: list[int] = []
        recorded = self.survey.recorded
        for where in dict.fromkeys(one.moment.where for one in recorded):
            own = [place for place, one in enumerate(recorded) if one.moment.where == where]
            count = min(_STEPS, len(own))
            found += [own[(2 * n + 1) * len(own) // (2 * count)] for n in range(count)]
        return tuple(found)

    @cached_property
    def _jobs(self) -> tuple[_Job, ...]:
        found = []
        for option in self.options:
            for part in (None, *self.parts):
                if part is None or part.segment is not None or self._kept(option, part):
                    if self.runner is not None:
                        found.append(self._job(option, part, None))
                    if part is None or part.segment is None:
                        found += [
                            self._job(option, part, place)
                            for place in self._steps
                            if self._keys(option, part).get(self._where(place))
                        ]
        return tuple(found)

    def _job(self, option: int, part: Part | None, recorded: int | None) -> _Job:
        if recorded is None:
            key = key_of({
                "job": "qdx.ablation/1",
                "facts": self.survey.facts,
                "changed": Quantizing(self.survey, option, self._keys(option, part)).identity,
                "graphs": [*sorted(self.survey.bound)],
                "segment": None if part is None else part.segment,
                "segments": self.segments,
            })  # fmt: skip
            return _Job(key, option, part)
        one = self.survey.recorded[recorded]
        change = self._change(_Job("", option, part, recorded))
        key = change.job(self.survey.facts, one, self.survey.dimensions[one.moment.where])
        return _Job(key, option, part, recorded)

    def _where(self, place: int) -> str:
        return self.survey.recorded[place].moment.where

    def _change(self, job: _Job) -> Change:
        assert job.recorded is not None
        where = self._where(job.recorded)
        keys = self._keys(job.option, job.part)[where]
        return Change(self.survey.prepared.graphs[where, job.option], tuple(keys))

    def _keys(self, option: int, part: Part | None) -> Mapping[str, Sequence[str]]:
        """The quantized sites by graph."""
        out = part.groups if part is not None and part.segment is None else frozenset()
        found: dict[str, list[str]] = {}
        for one in self.groups:
            if option in one.options and one.id not in out:
                found.setdefault(one.where, []).extend(one.sites)
        return found

    def _kept(self, option: int, part: Part) -> frozenset[int]:
        """The groups that would take the option."""
        return frozenset(n for n in part.groups if option in self.groups[n].options)

    def _course(self) -> FloatCourse:
        assert self.runner is not None
        prepared = self.survey.prepared
        graphs = {
            where: prepared.cache.attach(prepared.traced[where]) for where in self.survey.bound
        }
        return record_course(self.runner, 0, graphs)

    def _free(self, course: FloatCourse, job: _Job) -> Outcome:
        compute = Quantizing(self.survey, job.option, self._keys(job.option, job.part))()
        row: dict[str, Any] = {"steps": None}
        chosen = None
        if job.part is not None and job.part.segment is not None:
            segments = segments_of(course.steps)
            if job.part.segment >= len(segments):
                return Outcome((), dump_json(row, indent=None))
            left = segments[job.part.segment]
            chosen = [step for step in range(course.steps) if step not in left]
            row["steps"] = [left.start, left.stop]
        row |= figures_of(course, course.free(compute, chosen))
        return Outcome((), dump_json(row, indent=None))

    def _row(self, results: Mapping[str, Outcome], option: int, part: Part) -> Ablation | None:
        picture = dict(self._pictures(results, option, part))
        name = part.name
        if part.segment is not None:
            if picture["steps"] is None:
                return None
            first, last = picture["steps"]
            name = f"{first}-{last - 1}"
        groups = sorted(self._kept(option, part))
        gains = (
            dict.fromkeys(("prediction", "guidance"), None)
            if part.segment is not None
            else dict(self._gains(results, option, part))
        )
        offers = [(self.groups[n].offers[0], self.groups[n].offered(option)) for n in groups]
        whole = part.segment is not None
        return Ablation(
            option=option,
            kind=part.kind,
            part=name,
            groups=tuple(groups),
            prediction_db=gains["prediction"],
            guidance_db=gains["guidance"],
            latents_db=picture["latents_db"],
            psnr_db=picture["psnr_db"],
            ssim=picture["ssim"],
            more_bytes=0 if whole else sum(f.bytes - one.bytes for f, one in offers),
            less_macs_low=0 if whole else sum(one.macs_low for _, one in offers),
        )

    def _gains(
        self, results: Mapping[str, Outcome], option: int, part: Part
    ) -> Iterator[tuple[str, float | None]]:
        """Decibels of noise that are gone, by measure."""
        for name in ("prediction", "guidance"):
            before, after = (self._noise(results, option, one, name) for one in (None, part))
            there = before is not None and after is not None and before > 0 and after > 0
            yield name, 10 * math.log10(before / after) if there else None  # type: ignore[operator]  # both are there

    def _noise(
        self, results: Mapping[str, Outcome], option: int, part: Part | None, name: str
    ) -> float | None:
        """Mean noise on the compared steps with their weights, graphs added up; None where none was measured."""
        column = MEASURES.index(name)
        sums: dict[str, tuple[float, float]] = {}
        for place in self._steps:
            where = self._where(place)
            if not self._keys(option, part).get(where):
                continue
            numbers = results[self._job(option, part, place).key].numbers[column :: len(MEASURES)]
            values = [one for one in numbers if not math.isnan(one)]
            weight = self.survey.recorded[place].moment.weight
            if values:
                total, weights = sums.get(where, (0.0, 0.0))
                mean = math.fsum(values) / len(values)
                sums[where] = total + weight * mean, weights + weight
        if not sums:
            return None
        return math.fsum(total / weights for total, weights in sums.values())

    def _pictures(
        self, results: Mapping[str, Outcome], option: int, part: Part
    ) -> Iterator[tuple[str, Any]]:
        """What the free run gains."""
        names = ("latents_db", "psnr_db", "ssim")
        if self.runner is None:
            yield from dict.fromkeys((*names, "steps")).items()
            return
        before, after = (self._figures(results, option, one) for one in (None, part))
        yield "steps", after["steps"]
        pair = before["latents_noise"], after.get("latents_noise")
        yield "latents_db", 10 * math.log10(pair[0] / pair[1]) if all(pair) else None
        for name in names[1:]:
            known = before[name] is not None and after.get(name) is not None
            yield name, after[name] - before[name] if known else None

    def _figures(
        self, results: Mapping[str, Outcome], option: int, part: Part | None
    ) -> dict[str, Any]:
        data = results[self._job(option, part, None).key].data
        return parse_json(data.decode(), source="a result", error=InvalidInput)


def _gain(row: Ablation) -> float:
    """What rows are sorted by: noise of predictions, of segments that of the final latents."""
    found = row.prediction_db if row.kind != "segment" else row.latents_db
    return -math.inf if found is None else found
