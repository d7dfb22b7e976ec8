"""The measurements: every option of every group on every chosen step, as jobs of a sweep."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qdx.analyze.noise import Bench, Change
from qdx.exporter.calibrate.timesteps import timestep_input
from qdx.exporter.cost.activations import peak_activation_bytes
from qdx.exporter.cost.memory import available_memory_bytes, check_memory
from qdx.exporter.errors import UsageError
from qdx.exporter.text.words import about
from qdx.sweep.elsewhere import Request
from qdx.sweep.jobs import Sent, run_jobs
from qdx.sweep.results import Outcome, Results
from qdx.sweep.workers import Words

if TYPE_CHECKING:
    from qdx.analyze.calls import RecordedInputs
    from qdx.analyze.groups import Bound
    from qdx.analyze.prepared import Prepared
    from qdx.exporter.progress import Progress, Task
    from qdx.sweep.elsewhere import Elsewhere
    from qdx.sweep.jobs import Found

__all__ = ["SINGLE", "Job", "Pace", "Survey", "memory_for_values"]

SINGLE: Final = "single"
"""What requests for these measurements are called."""

_WORDS: Final = Words("analysis", "part")
_PARTS_EACH: Final = 16
"""Parts for each worker at least, so that none waits long for the last."""
_ASKED: Final = 40
"""Jobs of one request."""
_DIMENSIONS: Final = 8192
"""Of the errors of all calls of a graph together, about: so many are kept as they are."""
_LEAST: Final = 64
_SHARE: Final = 0.5
"""Of the free memory, for values of float runs."""
_TELLING: Final = 0.02
"""Share of the work that must be measured before the time left is told."""


@dataclass(frozen=True)
class Job:
    """One measurement: some sites by one option on the calls of one step.

    Attributes:
        key: What it is known by.
        recorded: Place of the step.
        group: Place of the group among those of its graph; None for all of them at once.
        option: The option.
        change: What is computed.
    """

    key: str
    recorded: int
    group: int | None
    option: int
    change: Change


@dataclass(frozen=True)
class Survey:
    """All measurements.

    Attributes:
        prepared: The quantized graphs.
        bound: Groups by graph.
        recorded: The steps.
        facts: Tells what every result depends on from all else.
        limit_bytes: Memory of one worker for values of float runs.
    """

    prepared: Prepared
    bound: Mapping[str, Sequence[Bound]]
    recorded: Sequence[RecordedInputs]
    facts: str
    limit_bytes: int

    @property
    def jobs(self) -> int:
        """How many there are."""
        return len(self.every)

    @cached_property
    def every(self) -> tuple[Job, ...]:
        """Those of one step after the other, and of one float graph together, in the order of the graph."""
        found = []
        for place, recorded in enumerate(self.recorded):
            own = list(self._jobs(place, recorded))
            own.sort(key=lambda job: (job.change.quantized.family, self._start(job)))
            found += own
        return tuple(found)

    @cached_property
    def dimensions(self) -> Mapping[str, int]:
        """Of the errors of one call, by graph."""
        calls: Counter[str] = Counter()
        for one in self.recorded:
            calls[one.moment.where] += len(one.moment.calls)
        return {where: max(_LEAST, _DIMENSIONS // count) for where, count in calls.items()}

    @cached_property
    def output_elements(self) -> Mapping[str, int]:
        """How many numbers a call answers, by graph."""
        return {
            where: sum(
                prod(size for size in spec.shape if isinstance(size, int)) for spec in graph.outputs
            )
            for where, graph in self.prepared.traced.items()
        }

    def bench(self, recorded: RecordedInputs) -> Bench:
        """What measures on the calls of a moment."""
        numbers = [{n: t for n, t in call.items() if t.dim() <= 1} for call in recorded.inputs]
        moment = recorded.moment
        timestep = timestep_input(numbers) if moment.timestep is not None else None
        return Bench(recorded, timestep, self.limit_bytes, self.dimensions[moment.where])

    def run(
        self,
        folder: Path,
        *,
        workers: int,
        progress: Progress,
        elsewhere: Elsewhere | None = None,
    ) -> Mapping[str, Outcome]:
        """Measures what is not known yet.

        Args:
            folder: Keeps results.
            workers: Parts at a time.
            progress: Told of every measurement.
            elsewhere: What measures instead of processes that are forked here.

        Returns:
            Results by key.
        """
        workers = workers if elsewhere is None else elsewhere.workers
        results = Results(folder)
        parts = self._parts(workers)
        pace = {job.key: job.change.work for job in self.every}
        total = len(pace.keys() - results.known.keys())
        with progress.task("analyzing", total, unit="measurements") as task:
            told = Pace(pace, results.known, workers, task, progress)
            run_jobs(
                [[job.key for job in part] for part in parts],
                lambda number, keys, found: self._measure(parts[number], keys, found),
                results,
                words=_WORDS,
                workers=workers,
                tell=told.heard,
                sent=None
                if elsewhere is None
                else Sent(elsewhere, lambda number, keys: _requests(parts[number], number, keys)),
            )
        return results.known

    def answer(self, body: Mapping[str, Any]) -> Mapping[str, Outcome]:
        """Measures what a request asks for.

        Raises:
            UsageError: It asks for what this survey does not have.
        """
        found: dict[str, Outcome] = {}
        by_place: dict[int, list[Job]] = {}
        for key in body["keys"]:
            job = self._by_key.get(key)
            if job is None:
                raise UsageError(
                    "another measurement is asked for than this machine would make of the same files",
                    hint="all machines need the same processor, model and versions",
                )
            by_place.setdefault(job.recorded, []).append(job)
        for place, jobs in by_place.items():
            bench = self._bench_at(place)
            found |= {job.key: bench.noise(job.change) for job in jobs}
        return found

    @cached_property
    def _by_key(self) -> Mapping[str, Job]:
        return {job.key: job for job in self.every}

    def _bench_at(self, place: int) -> Bench:
        """The bench of a step; that of the last one is kept, and its float runs with it."""
        if place not in self._benches:
            self._benches.clear()
            self._benches[place] = self.bench(self.recorded[place])
        return self._benches[place]

    @cached_property
    def _benches(self) -> dict[int, Bench]:
        return {}

    def _jobs(self, place: int, recorded: RecordedInputs) -> Iterator[Job]:
        where = recorded.moment.where
        together: dict[int, list[str]] = {}
        for number, bound in enumerate(self.bound[where]):
            keys = tuple(site.key for site in bound.sites)
            for option in bound.options:
                change = Change(self.prepared.graphs[where, option], keys)
                together.setdefault(option, []).extend(keys)
                key = change.job(self.facts, recorded, self.dimensions[where])
                yield Job(key, place, number, option, change)
        for option, keys_of_all in together.items():
            change = Change(self.prepared.graphs[where, option], tuple(keys_of_all))
            key = change.job(self.facts, recorded, self.dimensions[where])
            yield Job(key, place, None, option, change)

    def _start(self, job: Job) -> int:
        return job.change.quantized.floats.first_of(job.change.keys)

    def _parts(self, workers: int) -> list[list[Job]]:
        """Jobs that share float runs: those of a step, in several parts where there are few steps."""
        pieces = max(1, math.ceil(_PARTS_EACH * workers / max(1, len(self.recorded))))
        found: list[list[Job]] = []
        for place in range(len(self.recorded)):
            own = [job for job in self.every if job.recorded == place]
            size = max(1, math.ceil(len(own) / pieces))
            found += [own[start : start + size] for start in range(0, len(own), size)]
        return found

    def _measure(self, part: Sequence[Job], keys: Sequence[str], found: Found) -> None:
        wanted = set(keys)
        bench = self.bench(self.recorded[part[0].recorded])
        for job in part:
            if job.key in wanted:
                wanted.discard(job.key)
                found(job.key, bench.noise(job.change))


def _requests(part: Sequence[Job], number: int, keys: Sequence[str]) -> list[Request]:
    """Few jobs in each, so that little is lost with a machine, and none waits long for the last."""
    place = part[0].recorded
    return [
        Request(number, place, {"kind": SINGLE, "keys": list(keys[start : start + _ASKED])})
        for start in range(0, len(keys), _ASKED)
    ]


class Pace:
    """How far the measurements have come, by the nodes that they compute."""

    def __init__(
        self,
        work: Mapping[str, int],
        known: Mapping[str, object],
        workers: int,
        task: Task,
        progress: Progress,
    ) -> None:
        self._work = work
        self._left = sum(nodes for key, nodes in work.items() if key not in known)
        self._total = max(1, self._left)
        self._workers = workers
        self._done = 0
        self._seconds = 0.0
        self._task = task
        self._progress = progress
        self._announced = False

    def heard(self, message: Mapping[str, Any]) -> None:
        """Takes what a part tells."""
        nodes = sum(self._work[key] for key in message["done"])
        self._task.advance(len(message["done"]))
        self._done += nodes
        self._left -= nodes
        self._seconds += message["seconds"]
        known = self._done >= _TELLING * self._total
        left = self._left * self._seconds / max(1, self._done) / self._workers
        self._task.expect(left if known else math.nan)
        if known and not self._announced:
            self._announced = True
            self._progress.say(f"analyzing: {about(left)} left")


def memory_for_values(
    prepared: Prepared, recorded: Sequence[RecordedInputs], workers: int, asked_bytes: int | None
) -> int:
    """Bytes of one worker for values of float runs.

    A worker also holds the live activations of a rerun, and of the float run where not all values of that are kept.

    Raises:
        InsufficientMemory: There is not enough for the live activations.
    """
    calls = max((len(one.moment.calls) for one in recorded), default=1)
    graphs = {id(one.floats): one.floats.graph for one in prepared.graphs.values()}
    live = max(map(peak_activation_bytes, graphs.values()), default=0)
    available = available_memory_bytes()
    check_memory(
        workers * live * (calls + 1),
        available,
        f"analyzing with {workers} worker{'s'[: workers > 1]}",
        "give fewer --workers, or a smaller --call",
    )
    if asked_bytes is not None:
        return asked_bytes // workers
    return int(available * _SHARE) // workers
