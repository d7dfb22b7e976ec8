"""What a calibration is about to take: memory from its graphs, time from its first calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from qdx.calibration.workers import available_cores
from qdx.exporter.calibrate.taps import statistics_bytes
from qdx.exporter.measure.activations import peak_activation_bytes
from qdx.exporter.measure.forecast import Forecast
from qdx.exporter.measure.memory import available_memory_bytes, check_memory

if TYPE_CHECKING:
    from qdx.calibration.sample import SampleJob
    from qdx.exporter.progress import Progress, Task

__all__ = ["Pace", "chosen_workers", "worker_bytes"]

_SHARE: Final = 0.9
"""Of the memory that is available; the rest is for what nobody foresees."""


def worker_bytes(job: SampleJob) -> int:
    """Memory of one worker: the largest live activations of a call, and the statistics."""
    peaks = [
        peak_activation_bytes(graph)
        for graphs in (job.graphs, job.observed_graphs)
        for graph in graphs.values()
    ]
    statistics = sum(
        statistics_bytes(
            job.observed_graphs[where], job.sites[where], len(job.boundaries[where]) + 1
        )
        for where in job.observed_graphs
    )
    # What is kept or merged is there twice for a moment.
    return max(peaks, default=0) + 2 * statistics


def chosen_workers(job: SampleJob, samples: int, asked: int | None) -> int:
    """How many samples are computed at a time: as many as asked, else as processors and memory allow.

    Raises:
        InsufficientMemory: There is not enough for as many as were asked, or for one.
    """
    if job.observer is not None:
        return 1
    each, available = worker_bytes(job), int(available_memory_bytes() * _SHARE)
    if asked is not None:
        count = min(asked, samples)
    else:
        count = max(1, min(samples, available_cores(), available // max(1, each)))
    name = "1 worker" if count == 1 else f"{count} workers"
    smaller = "set a smaller `calibration.call` in the plan, such as half the height and width"
    way_out = smaller if count == 1 else f"give fewer `--workers`, or {smaller}"
    check_memory(count * each, available, f"calibrating with {name}", way_out)
    return count


class Pace:
    """How far the calls of all samples have come.

    Args:
        job: What all samples share.
        samples: How many.
        workers: How many at a time.
        task: Told of every call.
        progress: Told the estimate, once the first calls are measured.
        name: What this is.
    """

    def __init__(
        self,
        job: SampleJob,
        samples: int,
        workers: int,
        task: Task,
        progress: Progress,
        name: str,
    ) -> None:
        self._job = job
        self._samples = samples
        self._workers = workers
        self._task = task
        self._progress = progress
        self._name = name
        self._announced = False
        totals: Counter[str] = Counter()
        for sample in range(samples):
            made = job.calls(sample)
            for (where, _), observed in zip(job.rehearsal.calls[: len(made)], made, strict=True):
                totals[_kind(where, observed=observed)] += 1
        self._totals = totals
        self._forecast = Forecast(totals, workers=workers, memory_bytes=workers * worker_bytes(job))
        self._measured: set[str] = set()

    def told(self, message: Mapping[str, Any]) -> None:
        """Takes what a sample tells."""
        if "say" in message:
            self._progress.say(message["say"])
            return
        kind = _kind(message["where"], observed=message["observed"])
        if message["replayed"] and kind in self._totals:
            self._forecast.done_before(kind, 1)
        elif kind in self._totals:
            self._forecast.measured(kind, message["seconds"])
            self._measured.add(kind)
        self._task.advance(1)
        now = self._forecast.now()
        if now.seconds is not None:
            self._task.expect(now.seconds)
        if not self._announced and self._measured == self._totals.keys():
            self._announced = True
            self._progress.say(f"{self._name}: {self._plan()}; {now.words()}")

    def _plan(self) -> str:
        """What is to be done, in words."""
        calls = sum(self._totals.values())
        observed = sum(n for kind, n in self._totals.items() if kind.endswith(_OBSERVED))
        return (
            f"{self._samples} samples, {calls} calls, {observed} of them observed, "
            f"{self._workers} at a time"
        )


_OBSERVED: Final = " observed"


def _kind(where: str, *, observed: bool) -> str:
    return where + (_OBSERVED if observed else "")
