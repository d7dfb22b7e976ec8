"""What a benchmark found, as data and as text."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from qdx.bench.ratios import Ratio, ratio_of

__all__ = ["SCHEMA", "STEP", "BenchReport", "ContenderResult", "Timing", "timings_of"]

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
        opening_seconds: Reading and compiling, before the first call.
        memory_bytes: The most resident memory of its process, less what Python and the libraries took before
            anything was opened; None where the system does not tell.
        versions: Of the packages that ran it.
    """

    name: str
    runtime: str
    artifact_bytes: int
    opening_seconds: float
    memory_bytes: int | None
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Timing:
    """One contender at one method, or at a whole step.

    Attributes:
        where: `component.method`, or `step`.
        contender: Its name.
        median_ms: Over the rounds.
        ratio: To the first bundle, round by round; below 1 is faster.
        times_ms: Of every round.
    """

    where: str
    contender: str
    median_ms: float
    ratio: Ratio
    times_ms: tuple[float, ...] = field(repr=False)


@dataclass(frozen=True)
class BenchReport:
    """What a benchmark found.

    Attributes:
        machine: Processor, cores and system.
        threads: Of each runtime; None for their own choice.
        rounds: That count.
        inputs: Where they came from: `seeded` or `reference`.
        calls_per_step: Of each method in the denoising loop.
        contenders: The first bundle first.
        timings: By method, the contenders in order.
    """

    machine: Mapping[str, str | int | None]
    threads: int | None
    rounds: int
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
            "inputs": self.inputs,
            "calls_per_step": dict(self.calls_per_step),
            "contenders": [vars(one) | {"versions": dict(one.versions)} for one in self.contenders],
            "timings": [
                vars(one) | {"ratio": vars(one.ratio), "times_ms": list(one.times_ms)}
                for one in self.timings
            ],
        }

    def times_ms(self, where: str, contender: str) -> tuple[float, ...]:
        """The times of every round; empty where the contender lacks the method."""
        found = (t for t in self.timings if (t.where, t.contender) == (where, contender))
        return next((timing.times_ms for timing in found), ())


def timings_of(
    seconds: Mapping[str, Mapping[str, list[float]]],
    calls_per_step: Mapping[str, float],
    first: str,
) -> tuple[Timing, ...]:
    """Compares times with those of the first bundle.

    Args:
        seconds: By method and contender, one for each round.
        calls_per_step: Of each method; where several are in the loop, or one more than once, their sum is reported.
        first: The contender to compare with, which has every method.
    """
    every = {where: dict(times) for where, times in seconds.items()}
    loop = {where: count for where, count in calls_per_step.items() if count and where in every}
    if loop and list(loop.values()) != [1.0]:
        every[STEP] = _steps(every, loop)
    return tuple(
        Timing(
            where,
            name,
            statistics.median(taken) * 1e3,
            ratio_of(taken, times[first]),
            tuple(one * 1e3 for one in taken),
        )
        for where, times in every.items()
        for name, taken in times.items()
    )


def _steps(
    seconds: Mapping[str, Mapping[str, list[float]]], loop: Mapping[str, float]
) -> dict[str, list[float]]:
    """Seconds of a whole step by contender and round, for those that have all of its methods."""
    names = set.intersection(*(set(seconds[where]) for where in loop))
    ordered = [name for name in seconds[next(iter(loop))] if name in names]
    return {
        name: [
            sum(count * taken for count, taken in zip(loop.values(), of_round, strict=True))
            for of_round in zip(*(seconds[where][name] for where in loop), strict=True)
        ]
        for name in ordered
    }
