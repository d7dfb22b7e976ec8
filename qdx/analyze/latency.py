"""What each operation takes by each option, from the target's own runtime.

The harness is the graph itself. For each option there is an artifact in which every operation that can takes it, so that
each stands among its neighbours, with its quantizers, and is fused as in the model. The runtime's own clock divides the
time of each artifact among its operations, and operations of the same kind and shapes share the mean of theirs.

The time of the whole counts more than the clock inside: times of operations are scaled so that a graph of one option
takes what it was measured to take, what its changes of types take among it. What these take, for each number that passes
from an operation to one that reads another type, comes from further artifacts of several options, such as plans have
them. Others, in which options are drawn, only tell how far off the sum is.
"""

from __future__ import annotations

import os
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from qdx.analyze.latency_kinds import kinds_of, neighbours_of
from qdx.analyze.latency_table import (
    FLOAT,
    SCHEMA,
    LatencyTable,
    Machine,
    MixedLatency,
    OperationLatency,
    WholeLatency,
)
from qdx.analyze.latency_timing import Bench, TimedArtifact
from qdx.cache.facts import processor_name
from qdx.exporter.errors import InternalError
from qdx.exporter.progress import SILENT

if TYPE_CHECKING:
    from qdx.exporter.progress import Progress

__all__ = [
    "DrawnArtifact",
    "OptionArtifact",
    "Timed",
    "TimedDraw",
    "latency_table",
    "measure_latency",
]

_FARTHEST: Final = 1.5
"""How far the scale of an option's operations may lie from that of its whole graph: where few operations take the option,
the difference of two whole graphs says little."""
_STEP_NS: Final = 1e-3
"""By which the slope of predictions is told."""
_NANOSECONDS: Final = 1e6
"""In a millisecond."""


@dataclass(frozen=True)
class OptionArtifact:
    """A folder that `lower` wrote.

    Attributes:
        option: What the operations take that can.
        folder: The files.
        sites: Keys of the sites that take it; for float, `FLOAT`, none.
    """

    option: int
    folder: Path
    sites: frozenset[str]


@dataclass(frozen=True)
class DrawnArtifact:
    """A folder that `lower` wrote, in which operations take several options.

    Attributes:
        folder: The files.
        chosen: Option of sites by key; others are float.
        name: What it is.
        fitted: Whether what changes take is told from it; otherwise it is a check.
    """

    folder: Path
    chosen: Mapping[str, int]
    name: str
    fitted: bool = True


@dataclass(frozen=True)
class Timed:
    """What was measured of an option.

    Attributes:
        option: It.
        sites: Keys of the sites that take it.
        artifact: The times.
    """

    option: int
    sites: frozenset[str]
    artifact: TimedArtifact


@dataclass(frozen=True)
class TimedDraw:
    """What was measured of several options; see `DrawnArtifact`."""

    chosen: Mapping[str, int]
    name: str
    fitted: bool
    artifact: TimedArtifact


def measure_latency(
    bench: Bench,
    artifacts: Sequence[OptionArtifact],
    reads: Sequence[str],
    *,
    drawn: Sequence[DrawnArtifact] = (),
    progress: Progress = SILENT,
) -> LatencyTable:
    """Measures a graph.

    Args:
        bench: How; its sites are all of the graph.
        artifacts: One for each option, float among them.
        reads: By option, the type in which operations read their inputs.
        drawn: Such as tell what changes of types between neighbours take.
        progress: Shows the steps.

    Raises:
        InternalError: No artifact is float, there is nothing else, or two have one option.
        InvalidBundle: The runtime cannot read an artifact.
    """
    by_option = {one.option: one for one in artifacts}
    if FLOAT not in by_option or len(by_option) != len(artifacts) or len(artifacts) < 2:
        raise InternalError(f"`{bench.graph.where}`: expected one artifact of each option, and of float")  # fmt: skip
    floats = by_option[FLOAT].folder
    timed, draws = [], []
    with progress.task("timing", len(artifacts) + len(drawn), unit="artifacts") as task:
        for one in artifacts:
            found = bench.floats(floats) if one.option == FLOAT else bench.artifact(floats, one.folder)  # fmt: skip
            timed.append(Timed(one.option, one.sites, found))
            task.advance()
        for draw in drawn:
            found = bench.artifact(floats, draw.folder, operations=False)
            draws.append(TimedDraw(draw.chosen, draw.name, draw.fitted, found))
            task.advance()
    return latency_table(bench, timed, draws, reads)


def latency_table(
    bench: Bench, timed: Sequence[Timed], drawn: Sequence[TimedDraw], reads: Sequence[str]
) -> LatencyTable:
    """The table that measurements say.

    Args:
        bench: How they were made.
        timed: Of each option, and of float.
        drawn: Of several options.
        reads: By option, the type in which operations read their inputs.

    Raises:
        InternalError: There is nothing beside float, or operations of an option take no time at all.
    """
    artifacts = [*(one.artifact for one in timed), *(one.artifact for one in drawn)]
    floats_ms = [ms for one in artifacts for ms in one.floats_ms]
    if not floats_ms:
        raise InternalError(f"`{bench.graph.where}`: nothing was timed beside float")
    float_ms = statistics.median(floats_ms)
    kinds = kinds_of(bench.graph, bench.sites)
    whole_ms = {one.option: float_ms * one.artifact.ratio for one in timed}
    bare = LatencyTable.model_validate(
        {
            "schema": SCHEMA,
            "source": "measured",
            "where": bench.graph.where,
            "machine": _machine(bench, artifacts),
            "whole": tuple(
                WholeLatency(
                    option=one.option,
                    ms=whole_ms[one.option],
                    spread=one.artifact.spread,
                    clock_ms=one.artifact.clock_ms,
                )
                for one in timed
            ),
            **_scaled(timed, whole_ms, kinds, {}),
            "kind_of": kinds,
            "reads": tuple(reads),
            "neighbours": neighbours_of(bench.graph, [s for s in bench.sites if s.key in kinds]),
        }
    )
    changed = {
        one.option: bare.changed_elements(dict.fromkeys(one.sites & kinds.keys(), one.option))
        for one in timed
    }

    def at(ns: float) -> LatencyTable:
        """The table if changes take so much."""
        changes_ms = {option: ns * elements / _NANOSECONDS for option, elements in changed.items()}
        scaled = _scaled(timed, whole_ms, kinds, changes_ms)
        return bare.model_copy(update={**scaled, "change_ns": ns})

    draw_ms = [float_ms * one.artifact.ratio for one in drawn]
    fitted = [(one.chosen, ms) for one, ms in zip(drawn, draw_ms, strict=True) if one.fitted]
    table = at(change_ns(at, fitted))
    mixed = tuple(
        MixedLatency(
            name=one.name, fitted=one.fitted, ms=ms, predicted_ms=table.predict_ms(one.chosen)
        )
        for one, ms in zip(drawn, draw_ms, strict=True)
    )
    return table.model_copy(update={"mixed": mixed})


def change_ns(
    at: Callable[[float], LatencyTable], fitted: Sequence[tuple[Mapping[str, int], float]]
) -> float:
    """What a change takes for each number that passes, by least squares of relative errors over graphs of several options.

    Args:
        at: The table if changes take so many nanoseconds. What it predicts is linear in them, up to limits of scales.
        fitted: Of each graph, the options of its sites and what it takes in milliseconds.
    """
    none, some = at(0.0), at(_STEP_NS)
    off = [1 - none.predict_ms(chosen) / ms for chosen, ms in fitted]
    slopes = [(some.predict_ms(c) - none.predict_ms(c)) / ms / _STEP_NS for c, ms in fitted]
    squares = sum(slope * slope for slope in slopes)
    if not squares:
        return 0.0
    return max(0.0, sum(a * b for a, b in zip(slopes, off, strict=True)) / squares)


def _scaled(
    timed: Sequence[Timed],
    whole_ms: Mapping[int, float],
    kinds: Mapping[str, str],
    changes_ms: Mapping[int, float],
) -> dict[str, object]:
    """What is left beside the sites in float, and what each kind of site takes by each option, in milliseconds.

    Scaled so that they and the changes of types in it add up to what the whole graph of each option takes.
    """
    floats = next(one for one in timed if one.option == FLOAT)
    floats_ms = _alike(floats.artifact, kinds)
    unit = whole_ms[FLOAT] / floats.artifact.clock_ms
    rest_ms = unit * (floats.artifact.clock_ms - sum(floats_ms.values()))
    costs = {(key, FLOAT): ms * unit for key, ms in floats_ms.items()}
    for one in timed:
        if one.option == FLOAT:
            continue
        own = {key: ms for key, ms in _alike(one.artifact, kinds).items() if key in one.sites}
        if not sum(own.values()):
            raise InternalError(f"operations of option {one.option} take no time by the runtime")
        others_ms = rest_ms + sum(ms for (key, o), ms in costs.items() if o == FLOAT and key not in own)  # fmt: skip
        others_ms += changes_ms.get(one.option, 0.0)
        plain = whole_ms[one.option] / one.artifact.clock_ms
        scale = (whole_ms[one.option] - others_ms) / sum(own.values())
        scale = min(max(scale, plain / _FARTHEST), plain * _FARTHEST)
        costs |= {(key, one.option): ms * scale for key, ms in own.items()}
    return {"rest_ms": rest_ms, "operations": _by_kind(costs, kinds)}


def _alike(artifact: TimedArtifact, kinds: Mapping[str, str]) -> dict[str, float]:
    """Times of sites in which those of one kind have the median of theirs, scaled so that all add up to the same."""
    by_kind: dict[str, list[float]] = defaultdict(list)
    own = {key: ms for key, ms in artifact.sites_ms.items() if key in kinds}
    for key, ms in own.items():
        by_kind[kinds[key]].append(ms)
    medians = {kind: statistics.median(all_ms) for kind, all_ms in by_kind.items()}
    total = sum(medians[kinds[key]] for key in own)
    scale = sum(own.values()) / total if total else 1.0
    return {key: medians[kinds[key]] * scale for key in own}


def _by_kind(
    costs: Mapping[tuple[str, int], float], kinds: Mapping[str, str]
) -> tuple[OperationLatency, ...]:
    """The mean of operations of one kind, by option."""
    found: dict[tuple[int, str], list[float]] = defaultdict(list)
    for (key, option), ms in costs.items():
        found[option, kinds[key]].append(ms)
    return tuple(
        OperationLatency(
            operation=kind, option=option, ms=sum(all_ms) / len(all_ms), sites=len(all_ms)
        )
        for (option, kind), all_ms in sorted(found.items())
    )


def _machine(bench: Bench, artifacts: Sequence[TimedArtifact]) -> Machine:
    load = [load for one in artifacts for load in one.load]
    return Machine(
        processor=processor_name(),
        cores=os.cpu_count(),
        threads=bench.threads,
        clock=bench.clock,
        load=(min(load), max(load)) if load else (),
        rounds=min(len(one.ms) for one in artifacts if one.ms),
        runs=bench.runs,
        versions=bench.backend.versions(),
    )
