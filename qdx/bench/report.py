"""What a benchmark found, as data and as text."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from qdx.bench.ratios import Ratio, ratio_of
from qdx.bench.rounds import Taken

__all__ = [
    "SCHEMA",
    "STEP",
    "BenchReport",
    "ContenderResult",
    "Timing",
    "over_openings",
    "timings_of",
]

SCHEMA: Final = "qdx.bench/1"
STEP: Final = "step"
"""The name under which a whole denoising step is reported."""


@dataclass(frozen=True)
class ContenderResult:
    """What is said of a contender as a whole.

    Attributes:
        name: Its name.
        runtime: What ran it.
        artifact_bytes: All files of the methods that were measured.
        opening_seconds: Reading and compiling, before the first call; the median over the openings.
        memory_bytes: The most resident memory of its processes, less what Python and the libraries took before
            anything was opened; None where the system does not tell.
        versions: Of the packages that ran it.
        compiled: By method, what its engines were compiled for, where they do not run here; nothing of these was timed
            then, but what something else makes of their files. Empty otherwise.
        timed: What was timed then; empty otherwise.
    """

    name: str
    runtime: str
    artifact_bytes: int
    opening_seconds: float
    memory_bytes: int | None
    versions: Mapping[str, str]
    compiled: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    timed: str = ""


@dataclass(frozen=True)
class Timing:
    """One contender at one method, or at a whole step.

    Attributes:
        where: `component.method`, or `step`.
        contender: Its name.
        median_ms: Over the rounds.
        ratio: To the first bundle, round by round; below 1 is faster.
        cpu_median_ms: Processor time of all threads, over the rounds.
        cpu_ratio: The same as `ratio` for processor time.
        times_ms: Of every round.
        cpu_times_ms: Likewise.
    """

    where: str
    contender: str
    median_ms: float
    ratio: Ratio
    cpu_median_ms: float
    cpu_ratio: Ratio
    times_ms: tuple[float, ...] = field(repr=False)
    cpu_times_ms: tuple[float, ...] = field(repr=False)


@dataclass(frozen=True)
class BenchReport:
    """What a benchmark found.

    Attributes:
        machine: Processor, cores and system.
        threads: Of each runtime; None for their own choice.
        rounds: That count, in all openings together.
        openings: How often everything was opened anew, with as many rounds each.
        inputs: Where they came from: `seeded` or `reference`.
        calls_per_step: Of each method in the denoising loop.
        contenders: The first bundle first.
        timings: By method, the contenders in order.
    """

    machine: Mapping[str, str | int | None]
    threads: int | None
    rounds: int
    openings: int
    inputs: str
    calls_per_step: Mapping[str, float]
    contenders: tuple[ContenderResult, ...]
    timings: tuple[Timing, ...]

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON data."""
        return {
            "schema": SCHEMA,
            "machine": dict(self.machine),
            "threads": self.threads,
            "rounds": self.rounds,
            "openings": self.openings,
            "inputs": self.inputs,
            "calls_per_step": dict(self.calls_per_step),
            "contenders": [
                vars(one) | {"versions": dict(one.versions), "compiled": dict(one.compiled)}
                for one in self.contenders
            ],
            "timings": [
                {
                    name: list(value) if isinstance(value, tuple) else value
                    for name, value in vars(one).items()
                }
                | {"ratio": vars(one.ratio), "cpu_ratio": vars(one.cpu_ratio)}
                for one in self.timings
            ],
        }


def timings_of(
    taken: Mapping[str, Mapping[str, list[Taken]]],
    calls_per_step: Mapping[str, float],
    first: str,
    openings: int = 1,
) -> tuple[Timing, ...]:
    """Compares what calls took with the first bundle.

    Args:
        taken: By method and contender, one for each round.
        calls_per_step: Of each method; where several are in the loop, or one more than once, their sum is reported.
        first: The contender to compare with, which has every method.
        openings: How often everything was opened anew; the rounds of each stand together, as many of one as of another.
    """
    every = {where: dict(times) for where, times in taken.items()}
    loop = {where: count for where, count in calls_per_step.items() if count and where in every}
    if loop and list(loop.values()) != [1.0]:
        every[STEP] = _steps(every, loop)
    return tuple(
        _timing(where, name, calls, times[first], openings)
        for where, times in every.items()
        for name, calls in times.items()
    )


def over_openings(results: Sequence[ContenderResult]) -> ContenderResult:
    """What is said of one contender, opened several times."""
    memory = [one.memory_bytes for one in results if one.memory_bytes is not None]
    return replace(
        results[0],
        opening_seconds=statistics.median(one.opening_seconds for one in results),
        memory_bytes=max(memory, default=None),
    )


def _timing(
    where: str, name: str, calls: list[Taken], others: list[Taken], openings: int
) -> Timing:
    wall = [one.wall_s * 1e3 for one in calls]
    cpu = [one.cpu_s * 1e3 for one in calls]
    return Timing(
        where=where,
        contender=name,
        median_ms=statistics.median(wall),
        ratio=ratio_of(wall, [one.wall_s * 1e3 for one in others], openings),
        cpu_median_ms=statistics.median(cpu),
        cpu_ratio=ratio_of(cpu, [one.cpu_s * 1e3 for one in others], openings),
        times_ms=tuple(wall),
        cpu_times_ms=tuple(cpu),
    )


def _steps(
    taken: Mapping[str, Mapping[str, list[Taken]]], loop: Mapping[str, float]
) -> dict[str, list[Taken]]:
    """What a whole step takes by contender and round, for those that have all of its methods."""
    names = set.intersection(*(set(taken[where]) for where in loop))
    ordered = [name for name in taken[next(iter(loop))] if name in names]
    return {
        name: [
            _sum(loop, calls) for calls in zip(*(taken[where][name] for where in loop), strict=True)
        ]
        for name in ordered
    }


def _sum(loop: Mapping[str, float], calls: Sequence[Taken]) -> Taken:
    weighted = list(zip(loop.values(), calls, strict=True))
    return Taken(
        sum(count * one.wall_s for count, one in weighted),
        sum(count * one.cpu_s for count, one in weighted),
    )
