"""What a verification is about to take: memory from its graphs, time from its first calls."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from qdx.backends.lockstep_chunks import CHUNK_LIMIT_BYTES
from qdx.exporter.calibrate.weight_cache import CACHE_BYTES
from qdx.exporter.cost.activations import peak_activation_bytes
from qdx.exporter.cost.forecast import Forecast
from qdx.exporter.cost.memory import anonymous_bytes, available_memory_bytes, check_memory
from qdx.exporter.progress import SILENT, Progress
from qdx.exporter.text.words import about, memory
from qdx.verification.measure.lockstep import side_by_side
from qdx.verification.measure.rungs import ARTIFACT, QUANTIZED, UNOPTIMIZED
from qdx.verification.measure.selection import FEW, calls_compared, few, is_compared_in_part

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.graph import Graph

__all__ = [
    "LOCKSTEP",
    "REFERENCE",
    "UNKNOWN",
    "MethodWork",
    "Outlook",
    "is_large",
    "memory_bytes",
]

REFERENCE: Final = "reference"
"""A call in float PyTorch."""
LOCKSTEP: Final = "lockstep"
"""A call of the quantized graph and its artifact, quantizer by quantizer."""
_LIKE_REFERENCE: Final = {REFERENCE: 1.0, LOCKSTEP: 2.3, QUANTIZED: 1.2, UNOPTIMIZED: 1.0}
"""What a call takes in relation to one in float PyTorch, until it is measured: Stable Diffusion 1.5 on two cores."""
_SURE: Final = 2
"""Calls of the reference after which the time is told: the first also reads its weights."""
_HEAPS_BYTES: Final = 10**9
"""What libraries take, and heaps keep of freed memory, beside all that is counted."""
_LARGE_MACS: Final = 10**10
"""Of a call of the largest graph: for smaller models an estimate would take longer than it tells."""


@dataclass(frozen=True)
class MethodWork:
    """What verifying one method takes.

    Attributes:
        macs: Multiply-accumulates of a call.
        steps: Calls of each step of one run of the pipeline; those that belong to no step are alone.
        runs: Number of runs.
        recorded: Calls that the reference computes; none where its runs are kept.
        quantized: Whether there is a quantized graph.
        unoptimized: Whether the runtime can leave its optimizations out.
    """

    macs: int
    steps: tuple[int, ...]
    runs: int
    recorded: int
    quantized: bool
    unoptimized: bool

    @property
    def called(self) -> int:
        """Calls of one run."""
        return sum(self.steps)

    @property
    def made(self) -> int:
        """Calls of all runs."""
        return self.called * self.runs

    @property
    def compared(self) -> int:
        """Calls that are compared on the artifact without a budget."""
        return self.runs * self._compared_of_a_run

    @property
    def _compared_of_a_run(self) -> int:
        if not self.quantized:
            return self.called
        return calls_compared(self.steps, self.macs)

    def calls(self) -> dict[str, int]:
        """How many calls there are of each kind."""
        some = len(few(self._compared_of_a_run))
        in_part = is_compared_in_part(self.steps, self.macs)
        found = {REFERENCE: self.recorded, ARTIFACT: self.made + self.compared}
        if self.quantized:
            # The audit runs the artifact too; what lockstep has answered is not computed again.
            found[ARTIFACT] += 1
            asked = some if in_part else self._compared_of_a_run
            found |= {LOCKSTEP: some, QUANTIZED: asked - some}
        if self.unoptimized:
            found[UNOPTIMIZED] = 1 if in_part else some
        return found


class Outlook:
    """How long the rest of a verification takes.

    Args:
        works: By `component.method`; empty where nobody is told.
        memory_bytes: What it holds at most.
        progress: Told the estimate: what is to be done at once, the time when the first calls are measured.

    Attributes:
        calls_of_a_run: Calls of the methods that one run of the pipeline makes; None where nobody knows.
    """

    def __init__(
        self, works: Mapping[str, MethodWork], memory_bytes: int = 0, progress: Progress = SILENT
    ) -> None:
        self._progress = progress
        self._works = works
        self.calls_of_a_run = sum(work.called for work in works.values()) or None
        self._memory_bytes = memory_bytes
        self._told = False
        # What optimized kernels of few bits take says nothing of what floats take.
        self._forecasts = {floats: _forecast(works, floats=floats) for floats in (True, False)}
        self._measured: Counter[str] = Counter()

    def begin(self) -> None:
        """Says what is to be done, and what memory that takes.

        Raises:
            InsufficientMemory: There is not as much.
        """
        if not self._works:
            return
        recorded = sum(work.recorded for work in self._works.values())
        made = sum(work.made for work in self._works.values())
        compared = sum(work.compared for work in self._works.values())
        first = (
            f"{recorded} calls of the reference"
            if recorded
            else "the reference comes from the cache"
        )
        self._progress.say(
            f"verifying: {first}, {compared} calls compared, a pipeline of {made} calls; "
            f"{memory(self._memory_bytes)} of memory"
        )
        free = available_memory_bytes() + anonymous_bytes()
        check_memory(
            self._memory_bytes,
            free,
            "verifying",
            "verify where there is more, or a bundle of smaller pictures",
        )

    def measured(self, kind: str, where: str, seconds: float, calls: int = 1) -> None:
        """Takes calls that are done.

        Args:
            kind: Such as `REFERENCE`, or the name of a rung.
            where: `unet.forward`.
            seconds: What they took together.
            calls: How many they are.
        """
        name = f"{kind} {where}"
        forecast = self._forecasts[kind in _LIKE_REFERENCE]
        if name not in forecast.totals:
            return
        for _ in range(calls):
            forecast.measured(name, seconds / calls)
        self._measured[name] += calls
        is_sure = self._measured[name] >= min(_SURE, forecast.totals[name])
        if not self._told and where == self._largest and is_sure:
            self.tell()

    def tell(self) -> None:
        """Says how long the rest takes, where that is known."""
        left_s = self._left_s
        if math.isfinite(left_s) and self._works:
            self._told = True
            self._progress.say(f"verifying: {about(left_s)} left")

    @property
    def _largest(self) -> str:
        """The method with the most work."""
        return max(self._works, key=lambda where: self._works[where].macs * self._works[where].made)

    @property
    def _left_s(self) -> float:
        """Seconds that are left; NaN where nobody knows."""
        left = [forecast.now().seconds for forecast in self._forecasts.values()]
        return sum(math.nan if seconds is None else seconds for seconds in left)


def _forecast(works: Mapping[str, MethodWork], *, floats: bool) -> Forecast:
    """Of the kinds of calls whose time follows from that of the reference, or of the others."""
    totals, relative = {}, {}
    for where, work in works.items():
        for kind, count in work.calls().items():
            if (kind in _LIKE_REFERENCE) == floats:
                totals[f"{kind} {where}"] = count
                relative[f"{kind} {where}"] = max(1, work.macs) * _LIKE_REFERENCE.get(kind, 1.0)
    return Forecast(totals, relative)


UNKNOWN: Final = Outlook({})
"""Of a verification that nobody is told about."""


def is_large(macs: Mapping[str, int]) -> bool:
    """Whether a model is so large that an estimate takes less time than it is worth.

    Args:
        macs: Multiply-accumulates of one call of each graph.
    """
    return max(macs.values(), default=0) >= _LARGE_MACS


def memory_bytes(
    graphs: Mapping[str, Graph],
    quantized: Mapping[str, Graph],
    files_bytes: Mapping[str, int],
    *,
    compiled_ratio: float | None = None,
    weights_bytes: int = 0,
    shapes: int = 1,
) -> int:
    """What a verification holds at most.

    Args:
        graphs: All graphs in floating point, by `component.method`.
        quantized: The quantized ones of them.
        files_bytes: Of the files of each artifact, likewise.
        compiled_ratio: Bytes that the runtime takes at the first call for each byte of a quantized graph's files, and
            keeps with the activations of the call; None where it takes its own when it opens a file.
        weights_bytes: Of the reference, in memory of their own while it runs.
        shapes: How many combinations of sizes the artifacts are called with.
    """
    calls = {w: peak_activation_bytes(one, late_weights=False) for w, one in graphs.items()}
    lockstep = [
        side_by_side(one, FEW) * (peak_activation_bytes(one) + CHUNK_LIMIT_BYTES)
        for one in quantized.values()
    ]
    reference = weights_bytes + max(calls.values(), default=0)
    largest = max([reference, *lockstep])
    held = max((files_bytes.get(where, 0) for where in quantized), default=0)  # opened once more
    if compiled_ratio is not None:
        compiled = sum(calls.values()) + int(
            compiled_ratio * sum(files_bytes.get(where, 0) for where in quantized)
        )
        held, largest = 0, max(largest, compiled * shapes)
    return anonymous_bytes() + _HEAPS_BYTES + CACHE_BYTES + held + largest
