"""What artifacts take in the target's own runtime: each whole, in turns with the one in float, and divided among operations.

Two artifacts are open at a time, however many there are: what each takes is told by its ratio to float in the same turns,
so that a change of the machine's load meets both alike.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import numpy as np
from pydantic import ConfigDict, Field

from qdx.analyze.latency_table import Milliseconds
from qdx.backends.capabilities import TimesOperations
from qdx.bench.rounds import Taken, take_turns
from qdx.exporter.errors import InternalError
from qdx.exporter.progress import SILENT
from qdx.exporter.strict_model import StrictModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qdx.backends.capabilities import TimedOperation
    from qdx.backends.contract import Backend, Runner
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.graph.ir.site import Site

__all__ = ["Bench", "TimedArtifact", "divided", "example_inputs", "turn"]

_SCHEMA: Final = "qdx.timed/1"
_TURN_S: Final = 0.01
"""A turn takes at least so long, of as many calls as that needs; the least of them counts."""
_PAUSE_S: Final = 0.02
_TURNS_S: Final = 10.0
"""For the turns of one artifact, about; between the numbers of rounds below."""
_OPENINGS_LEAST: Final = 3
_OPENINGS_MOST: Final = 9
_OPENINGS_S: Final = 8.0
"""For opening artifacts anew, about, between the numbers above."""
_ROUNDS_LEAST: Final = 9
_ROUNDS_MOST: Final = 33
_RUNS: Final = 16
_EIGHTH: Final = 8
"""Of the times of an operation the lower eighth counts: others on the machine only add, and often at the same place."""
_SECOND_MS: Final = 1e3

_Inputs = Mapping[str, "NDArray[Any]"]


class TimedArtifact(StrictModel):
    """What was measured of one artifact: data, so that it can be kept.

    Attributes:
        schema_: The format, `qdx.timed/1`; the key in JSON is `schema`.
        floats_ms: What the artifact in float took in each round; empty for that itself.
        ms: What this one took in the same rounds.
        sites_ms: By the runtime's own clock, what each site takes by its key; empty where only the whole was asked for.
        rest_ms: Likewise all else.
        load: The machine's load averages of one minute, before and after; empty where the system does not tell.
    """

    model_config = ConfigDict(title=_SCHEMA, validate_by_name=False, validate_by_alias=True)

    schema_: Annotated[Literal["qdx.timed/1"], Field(alias="schema")]
    floats_ms: tuple[Milliseconds, ...]
    ms: tuple[Milliseconds, ...]
    sites_ms: dict[str, Milliseconds]
    rest_ms: Milliseconds
    load: tuple[float, ...]

    @property
    def clock_ms(self) -> float:
        """The sum of all operations."""
        return sum(self.sites_ms.values()) + self.rest_ms

    @property
    def ratios(self) -> list[float]:
        """Of the whole to float, round by round."""
        return [own / floats for own, floats in zip(self.ms, self.floats_ms, strict=True)]

    @property
    def ratio(self) -> float:
        """The median of them; 1 for float itself."""
        return statistics.median(self.ratios) if self.ms else 1.0

    @property
    def spread(self) -> float:
        """Half of the range between the quartiles of the ratios, over their median."""
        if not self.ms:
            return 0.0
        low, high = np.quantile(self.ratios, [0.25, 0.75])
        return float(high - low) / 2 / self.ratio


@dataclass(frozen=True)
class Bench:
    """How artifacts of one graph are timed.

    Attributes:
        graph: The graph.
        sites: Those among which time is divided.
        backend: The target's; it is `TimesOperations`.
        options: With which artifacts run.
        inputs: Of a call, named as artifacts name them; None takes random numbers, which change no time.
        threads: Of the runtime; None for its own choice. With one thread processor time is measured, which other programs
            on the machine disturb little.
        rounds: Turns that count; None takes as many as about ten seconds hold.
        openings: How often artifacts are opened for them; None for three to nine times, fewer where that takes long.
        runs: In which operations are timed.
    """

    graph: Graph
    sites: Sequence[Site]
    backend: Backend
    options: Mapping[str, str]
    inputs: _Inputs | None = None
    threads: int | None = None
    rounds: int | None = None
    openings: int | None = None
    runs: int = _RUNS

    @property
    def clock(self) -> Literal["processor", "wall"]:
        """Which time is measured."""
        return "processor" if self.threads == 1 else "wall"

    def floats(self, folder: Path) -> TimedArtifact:
        """The operations of the artifact in float.

        Raises:
            InvalidBundle: The runtime cannot read it.
        """
        given = self._given(self._open(folder))
        return self._timed([], [], self._operations(folder, given), [_load()])

    def artifact(self, floats: Path, folder: Path, *, operations: bool = True) -> TimedArtifact:
        """An artifact as a whole, in turns with the one in float, and its operations.

        Args:
            floats: The folder of the one in float.
            folder: Its own.
            operations: Whether those are asked for.

        Raises:
            InvalidBundle: The runtime cannot read one of them.
        """
        load = [_load()]
        taken = self.turns({"floats": floats, "own": folder})
        divided_ms: tuple[dict[str, float], float] = ({}, 0.0)
        if operations:
            divided_ms = self._operations(folder, self._given(self._open(folder)))
        return self._timed(taken["floats"], taken["own"], divided_ms, load)

    def turns(self, folders: Mapping[str, Path]) -> dict[str, list[float]]:
        """Milliseconds of a call of several artifacts in turns, round by round.

        They are opened a few times: where in memory a runtime lays out weights changes what it takes by some percent.
        """
        found: dict[str, list[float]] = {name: [] for name in folders}
        number, openings = 0, self.openings
        while openings is None or number < openings:
            start = time.perf_counter()
            runners = {name: self._open(folder) for name, folder in folders.items()}
            if openings is None:
                openings = self._usual_openings(time.perf_counter() - start)
            rounds = None if self.rounds is None else len(range(number, self.rounds, openings))
            for name, each in self._turns(runners, rounds, openings).items():
                found[name] += each
            del runners  # closed before they are opened again: memory holds each once
            number += 1
        return found

    def _usual_openings(self, opening_s: float) -> int:
        most = min(self.rounds or _OPENINGS_MOST, _OPENINGS_MOST)
        asked = max(int(_OPENINGS_S / opening_s), _OPENINGS_LEAST)
        return min(asked, most)

    def _turns(
        self, runners: Mapping[str, Runner], rounds: int | None, openings: int
    ) -> dict[str, list[float]]:
        given = self._given(next(iter(runners.values())))
        calls = {name: partial(runner, given) for name, runner in runners.items()}
        if rounds is None:
            round_s = sum(_second_of_two(call) for call in calls.values())
            asked = min(max(_TURNS_S / round_s, _ROUNDS_LEAST), _ROUNDS_MOST)
            rounds = math.ceil(asked / openings)
        with SILENT.task("") as task:
            taken = take_turns(
                {name: turn(call) for name, call in calls.items()},
                rounds=rounds, inputs=1, task=task, pause_s=_PAUSE_S,
            )  # fmt: skip
        processor = self.clock == "processor"
        return {
            name: [_SECOND_MS * (one.cpu_s if processor else one.wall_s) for one in each]
            for name, each in taken.items()
        }

    def _open(self, folder: Path) -> Runner:
        return self.backend.open(folder, self.options, threads=self.threads)

    def _given(self, runner: Runner) -> _Inputs:
        return example_inputs(self.graph, runner) if self.inputs is None else self.inputs

    def _operations(self, folder: Path, given: _Inputs) -> tuple[dict[str, float], float]:
        if not isinstance(self.backend, TimesOperations):
            raise InternalError(f"the backend `{self.backend.name}` tells no times of operations")
        found = self.backend.time_operations(
            folder, self.options, given, runs=self.runs, threads=self.threads
        )
        return divided(found, self.sites)

    def _timed(
        self,
        floats_ms: Sequence[float],
        ms: Sequence[float],
        divided_ms: tuple[Mapping[str, float], float],
        load: Sequence[float | None],
    ) -> TimedArtifact:
        told = [one for one in (*load, _load()) if one is not None]
        return TimedArtifact.model_validate(
            {
                "schema": _SCHEMA,
                "floats_ms": tuple(floats_ms),
                "ms": tuple(ms),
                # As it is read again: sums are the same.
                "sites_ms": dict(sorted(divided_ms[0].items())),
                "rest_ms": divided_ms[1],
                "load": tuple(told),
            }
        )


def divided(
    operations: Sequence[TimedOperation], sites: Sequence[Site]
) -> tuple[dict[str, float], float]:
    """The times of operations in milliseconds, each to the sites that it computes or stands around, and of all else."""
    own = dict.fromkeys((site.key for site in sites), 0.0)
    by_name: dict[str, list[str]] = defaultdict(list)
    for site in sites:
        by_name[site.fqn].append(site.key)
    rest = 0.0
    for one in operations:
        ms = _SECOND_MS * sorted(one.seconds)[len(one.seconds) // _EIGHTH]
        keys = [key for key in one.sites if key in own]
        if not one.sites:  # a quantizer, say, is named after the module that it was made for
            keys = by_name.get(one.name.partition("/")[0], [])
        for key in keys:
            own[key] += ms / len(keys)
        rest += 0.0 if keys else ms
    return own, rest


def turn(call: Callable[[], Any]) -> Callable[[int], Taken]:
    """One turn: the least that a call took of a few."""

    def run(number: int) -> Taken:
        del number
        least, start = Taken(float("inf"), float("inf")), time.perf_counter()
        while least.wall_s == float("inf") or time.perf_counter() - start < _TURN_S:
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            least = Taken(
                min(least.wall_s, time.perf_counter() - wall),
                min(least.cpu_s, time.process_time() - cpu),
            )
        return least

    return run


def example_inputs(graph: Graph, runner: Runner) -> dict[str, NDArray[Any]]:
    """Random numbers in the artifact's shapes, open sizes as the graph usually has them; whole numbers are 1."""
    random = np.random.default_rng(0)
    usual = {symbol: size.usual for symbol, size in graph.sizes.items()}
    found: dict[str, NDArray[Any]] = {}
    for place, spec in enumerate(runner.inputs):
        own = graph.inputs[place].shape if place < len(graph.inputs) else ()
        known = own if len(own) == len(spec.shape) else spec.shape
        sizes = [
            size if isinstance(size, int) else usual.get(str(symbol), 1)
            for size, symbol in zip(spec.shape, known, strict=True)
        ]
        floats = spec.dtype.startswith("float")
        values = random.standard_normal(sizes) if floats else np.ones(sizes)
        found[spec.name] = values.astype(spec.dtype)
    return found


def _second_of_two(call: Callable[[], Any]) -> float:
    """Seconds of a turn behind a first one, in which the runtime lays out weights."""
    call()
    return turn(call)(0).wall_s + _PAUSE_S


def _load() -> float | None:
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):  # not on every system
        return None
