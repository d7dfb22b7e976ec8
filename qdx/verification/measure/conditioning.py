"""The strength of guidance: how far apart the prompt pulls the prediction, artifact against reference.

Quantization that removes what the prompt adds leaves a small error in the prediction, and pictures that ignore
the prompt. The spread of (conditional - unconditional) shows it step by step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from qdx.exporter.calibrate.guidance import GuidanceTracker
from qdx.exporter.calibrate.timesteps import timestep_input, timestep_of
from qdx.exporter.measure import metrics
from qdx.runtime.reference import RecordedCall, RecordedMethod

__all__ = ["Conditioning", "ConditioningMeter", "StepConditioning", "timestep_name"]

_BRANCHES = 2


@dataclass(frozen=True)
class StepConditioning:
    """One step.

    Attributes:
        index: Position of the step's last call among the calls of the method.
        reference: Standard deviation of (conditional - unconditional) of the float32 prediction.
        artifact: The same of the artifact's prediction for the same inputs; NaN where it has none.
    """

    index: int
    reference: float
    artifact: float

    @property
    def ratio(self) -> float:
        """Artifact over reference; NaN where it is not defined."""
        found = math.isfinite(self.reference) and math.isfinite(self.artifact)
        return self.artifact / self.reference if found and self.reference > 0 else math.nan


@dataclass(frozen=True)
class Conditioning:
    """The strength of guidance over the steps of one method.

    Attributes:
        steps: Measured steps in order; empty where `note` says why.
        note: Why there is nothing to measure.
        applicable: Whether the call has, or may have, guidance.
    """

    steps: tuple[StepConditioning, ...]
    note: str = ""
    applicable: bool = True

    @property
    def ratio_min(self) -> float:
        """Least ratio of artifact over reference; NaN where a step has none."""
        return metrics.worst_of(step.ratio for step in self.steps)

    @property
    def ratio_max(self) -> float:
        """Greatest ratio; NaN where a step has none."""
        return metrics.worst_of((step.ratio for step in self.steps), max)

    def to_json(self) -> dict[str, Any]:
        """The strengths as plain JSON data; what is not a number becomes null."""
        return {
            "applicable": self.applicable,
            "note": self.note,
            "ratio_min": metrics.finite_or_none(self.ratio_min),
            "ratio_max": metrics.finite_or_none(self.ratio_max),
            "steps": [
                {
                    "index": step.index,
                    "reference_std": metrics.finite_or_none(step.reference),
                    "artifact_std": metrics.finite_or_none(step.artifact),
                    "ratio": metrics.finite_or_none(step.ratio),
                }
                for step in self.steps
            ],
        }


class ConditioningMeter:
    """Follows the calls of one method in the order in which the pipeline made them.

    Args:
        record: The method's calls.
    """

    def __init__(self, record: RecordedMethod) -> None:
        self._timestep = timestep_name(record)
        self._thinned = record.times_called > len(record.calls)
        self._steps: list[StepConditioning] = []
        self._before: tuple[RecordedCall, Mapping[str, Tensor]] | None = None
        self._many = False

    def add(self, call: RecordedCall, outputs: Mapping[str, Tensor]) -> None:
        """Takes the next replayed call with what the artifact answered; empty if it failed."""
        if self._timestep is None:
            return
        before, self._before = self._before, (call, outputs)
        copies, _ = self._branches([call])
        if copies > 1:
            self._many |= copies > _BRANCHES
            if copies == _BRANCHES:
                pair = (_halves(call.outputs), _halves(outputs))
                self._steps.append(StepConditioning(call.index, *map(_spread, pair)))
            return
        if before is None or before[0].index + 1 != call.index:
            return
        if self._branches([before[0], call])[1] == _BRANCHES:
            pair = (_pair(before[0].outputs, call.outputs), _pair(before[1], outputs))
            self._steps.append(StepConditioning(call.index, *map(_spread, pair)))
            self._before = None

    def finish(self) -> Conditioning | None:
        """What was measured; None for a method that is no denoiser."""
        if self._timestep is None:
            return None
        if self._steps:
            return Conditioning(tuple(self._steps))
        if self._many:
            return Conditioning((), "the batch holds more than two branches of guidance", False)
        if self._thinned:
            return Conditioning((), "not every call was kept, so that pairs cannot be told")
        return Conditioning((), "not applicable: the call has no classifier-free guidance", False)

    def _branches(self, calls: Sequence[RecordedCall]) -> tuple[int, int]:
        """Copies of the latents in a batch, and calls of one step."""
        tracker = GuidanceTracker("both")
        for call in calls:
            assert self._timestep is not None
            tracker.rows(timestep_of(call.inputs[self._timestep]), call.inputs, "")
        return tracker.copies, tracker.calls


def timestep_name(record: RecordedMethod) -> str | None:
    """The input that tells a denoiser's timestep; None for methods that have none."""
    return timestep_input([call.numbers() for call in record.calls])


def _halves(outputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor] | None:
    first = next(iter(outputs.values()), None)
    if first is None or first.dim() == 0 or first.shape[0] % _BRANCHES:
        return None
    one, other = first.double().chunk(_BRANCHES)
    return one, other


def _pair(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> tuple[Tensor, Tensor] | None:
    first, second = next(iter(one.values()), None), next(iter(other.values()), None)
    if first is None or second is None or first.shape != second.shape:
        return None
    return first.double(), second.double()


def _spread(pair: tuple[Tensor, Tensor] | None) -> float:
    """Standard deviation of the difference, over all elements; NaN for nothing."""
    if pair is None or pair[0].numel() == 0:
        return math.nan
    return float((pair[1] - pair[0]).std(correction=0))
