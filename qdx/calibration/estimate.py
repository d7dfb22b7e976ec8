"""What a calibration is about to take: memory from its graphs, time from its first calls."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from qdx.calibration.workers import available_cores
from qdx.exporter.calibrate.taps import statistics_bytes
from qdx.exporter.cost.activations import peak_activation_bytes
from qdx.exporter.cost.arithmetic import macs_of_call
from qdx.exporter.cost.forecast import Forecast
from qdx.exporter.cost.memory import anonymous_bytes, available_memory_bytes, check_memory
from qdx.exporter.devices import describe_device, free_device_bytes, is_cpu
from qdx.exporter.errors import UsageError

if TYPE_CHECKING:
    import torch

    from qdx.calibration.sample import SampleJob
    from qdx.exporter.progress import Progress, Task

__all__ = ["SMALLER_CALL", "Pace", "check_workers", "chosen_workers", "worker_bytes"]

SMALLER_CALL: Final = (
    "set a smaller `calibration.call` in the plan, such as half the height and width"
)
"""What to do where memory will not do for one sample."""

_SHARE: Final = 0.9
"""Of the memory that is available; the rest is for what nobody foresees."""


def worker_bytes(job: SampleJob) -> int:
    """Memory of one worker: the largest live activations of a call, and the statistics."""
    made = [job.calls(sample) for sample in range(job.settings.samples)]
    called = {
        (where, observed)
        for calls in made
        for (where, _), observed in zip(job.rehearsal.calls, calls, strict=False)
    }
    graphs = [(job.observed_graphs if observed else job.graphs)[w] for w, observed in called]
    peak = max(map(peak_activation_bytes, graphs), default=0)
    statistics = sum(
        statistics_bytes(
            job.observed_graphs[where], job.sites[where], len(job.boundaries[where]) + 1
        )
        for where in job.observed_graphs
    )
    # What is kept or merged is there twice for a moment.
    return peak + 2 * statistics


def check_workers(asked: int | None, device: torch.device) -> None:
    """Refuses several workers on a GPU: one process at a time computes there.

    Raises:
        UsageError: They are asked for.
    """
    if asked is not None and asked > 1 and not is_cpu(device):
        raise UsageError(
            f"--workers {asked}: a GPU computes one sample after the other",
            hint="leave --workers out, or give --device cpu",
        )


def chosen_workers(job: SampleJob, samples: int, asked: int | None) -> int:
    """How many samples are computed at a time: as many as asked, else as processors and memory allow; one on a GPU.

    Raises:
        InsufficientMemory: There is not enough for as many as were asked, or for one.
    """
    if job.observer is not None:
        return 1
    each = worker_bytes(job)
    if not is_cpu(job.device):
        free = int(free_device_bytes(job.device) * _SHARE)
        check_memory(each, free, f"calibrating on {describe_device(job.device)}", SMALLER_CALL)
        return 1
    available = int(available_memory_bytes() * _SHARE)
    if asked is not None:
        count = min(asked, samples)
    else:
        count = max(1, min(samples, available_cores(), available // max(1, each)))
    name = "1 worker" if count == 1 else f"{count} workers"
    way_out = SMALLER_CALL if count == 1 else f"give fewer `--workers`, or {SMALLER_CALL}"
    check_memory(count * each, available, f"calibrating with {name}", way_out)
    return count


class Pace:
    """How far the calls of all samples have come.

    Args:
        job: What all samples share.
        samples: Their numbers.
        workers: How many are computed at a time.
        task: Told of every call.
        progress: Told the estimate, once the first calls are measured.
        name: What this is.
    """

    def __init__(
        self,
        job: SampleJob,
        samples: Sequence[int],
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
        for sample in samples:
            made = job.calls(sample)
            for (where, _), observed in zip(job.rehearsal.calls[: len(made)], made, strict=True):
                totals[_kind(where, observed=observed)] += 1
        self._totals = totals
        self._relative = {kind: _relative(job, kind) for kind in totals}
        self._forecast = Forecast(
            totals,
            relative=self._relative,
            workers=workers,
            memory_bytes=anonymous_bytes() + workers * worker_bytes(job),
        )
        self._measured: set[str] = set()
        self._replayed: set[str] = set()
        self._said: set[str] = set()

    def told(self, message: Mapping[str, Any]) -> None:
        """Takes what a sample tells."""
        if "say" in message:
            if message["say"] not in self._said:  # every sample meets the same full disk
                self._said.add(message["say"])
                self._progress.say(message["say"])
            return
        kind = _kind(message["where"], observed=message["observed"])
        if message["replayed"] and kind in self._totals:
            self._forecast.done_before(kind, 1)
            self._replayed.add(kind)
        elif kind in self._totals:
            self._forecast.measured(kind, message["seconds"])
            self._measured.add(kind)
        self._task.advance(1)
        now = self._forecast.now()
        self._task.expect(math.nan if now.seconds is None or not self._tells() else now.seconds)
        known = self._measured | self._replayed == self._totals.keys()
        if not self._announced and known and self._measured and now.seconds is not None:
            self._announced = True
            self._progress.say(f"{self._name}: {self._plan()}; {now.words()}")

    def _tells(self) -> bool:
        """Whether what is measured tells of the rest: a text encoder's pace says nothing of a denoiser's."""
        work = {kind: n * self._relative[kind] for kind, n in self._totals.items()}
        return sum(work[kind] for kind in self._measured) >= _TELLING * sum(work.values())

    def _plan(self) -> str:
        """What is to be done, in words."""
        calls = sum(self._totals.values())
        observed = sum(n for kind, n in self._totals.items() if kind.endswith(_OBSERVED))
        return (
            f"{len(self._samples)} samples, {calls} calls, {observed} of them observed, "
            f"{self._workers} at a time"
        )


_OBSERVED: Final = " observed"
_OBSERVING: Final = 1.3
"""What an observed call takes, in relation to a plain one, until it is measured."""
_TELLING: Final = 0.2
"""Share of the work whose kinds must be measured before the time left is told."""


def _relative(job: SampleJob, kind: str) -> float:
    """What a call of a kind takes in relation to others, until it is measured."""
    where, observed, _ = kind.partition(_OBSERVED)
    macs = max(1, macs_of_call(job.graphs[where]))
    return macs * (_OBSERVING if observed else 1.0)


def _kind(where: str, *, observed: bool) -> str:
    return where + (_OBSERVED if observed else "")
