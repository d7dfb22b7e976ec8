"""What an option of a group does to the output of a graph, on recorded calls."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final

import torch

from qdx.analyze.analysis import MEASURES
from qdx.cache.facts import tensor_digest
from qdx.cache.keys import key_of
from qdx.exporter.calibrate.guidance import GuidanceTracker
from qdx.exporter.calibrate.timesteps import timestep_of
from qdx.exporter.measure.mixed_run import Pair
from qdx.exporter.measure.reruns import FloatGraph, Reruns
from qdx.sweep.results import Outcome

if TYPE_CHECKING:
    from pydantic import JsonValue

    from qdx.analyze.calls import RecordedInputs
    from qdx.exporter.transforms.recipe import Recipe

__all__ = [
    "Bench",
    "Change",
    "Quantized",
    "errors_of",
    "folded",
    "measured",
    "relative_errors",
    "relative_noise",
]

_BRANCHES: Final = 2
_Outputs = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Quantized:
    """A graph of which every operation that can takes one option.

    Attributes:
        floats: The float graph in the form that is quantized.
        pair: It and the quantized one.
        recipe: What led from one to the other.
        family: Tells the form from others; those of one family have the same float graph.
    """

    floats: FloatGraph = field(repr=False)
    pair: Pair = field(repr=False)
    recipe: Recipe = field(repr=False)
    family: str

    @cached_property
    def _placed(self) -> Mapping[str, JsonValue]:
        return {site.key: site.to_json() for site in self.recipe.placement.sites}

    @cached_property
    def _others(self) -> JsonValue:
        """Transforms besides the quantizers, such as corrected biases."""
        others = [one for one in self.recipe.transforms if one.kind != "insert_quantizers"]
        digest = hashlib.sha256()
        for one in others:
            for name, tensor in sorted(one.tensors().items()):
                digest.update(f"{one.kind} {name} {tensor_digest(tensor)};".encode())
        found: list[JsonValue] = [{one.kind: one.to_json()} for one in others]
        return [*found, digest.hexdigest()]

    def identity(self, keys: Sequence[str]) -> JsonValue:
        """All that the results of some sites depend on, beside the model, the call and the code."""
        return [self._others, [self._placed[key] for key in keys]]


@dataclass(frozen=True)
class Change:
    """Sites that are quantized at once.

    Attributes:
        quantized: By which graph.
        keys: The sites.
    """

    quantized: Quantized
    keys: tuple[str, ...]

    def job(self, facts: str, recorded: RecordedInputs, dimensions: int) -> str:
        """The key of the job that measures it on the calls of one moment.

        Args:
            facts: What every number depends on.
            recorded: The calls.
            dimensions: Of the errors of a call.
        """
        return key_of({
            "job": "qdx.noise/1",
            "facts": facts,
            "where": recorded.moment.where,
            "inputs": list(recorded.digests),
            "dimensions": dimensions,
            "changed": self.quantized.identity(self.keys),
        })  # fmt: skip

    @property
    def work(self) -> int:
        """Nodes that a rerun computes."""
        return len(self.quantized.floats.behind(self.keys))


class Bench:
    """Measures changes on the calls of one moment; float runs are shared.

    Args:
        recorded: The calls.
        timestep: The graph's input that tells the timestep; None without one.
        limit_bytes: Memory for values of float runs, see `Reruns`.
        dimensions: Of the errors of a call, see `errors_of`.

    Attributes:
        inputs: Of each call, by name.
        limit_bytes: Memory for values of one float run.
        guidance: Copies of the latents in a batch, and calls with the same latents; see `measured`.
    """

    def __init__(
        self, recorded: RecordedInputs, timestep: str | None, limit_bytes: int, dimensions: int
    ) -> None:
        self.inputs = [dict(call) for call in recorded.inputs]
        self.limit_bytes = limit_bytes // len(self.inputs)
        self._dimensions = dimensions
        self._runs: dict[str, tuple[Reruns, ...]] = {}
        self.guidance = _guidance(self.inputs, timestep, recorded.moment.where)

    def noise(self, change: Change) -> Outcome:
        """The measures and errors of each call."""
        runs = self._reruns(change.quantized)
        pairs = dict.fromkeys(change.keys, change.quantized.pair)
        return self.outcome([(one.outputs, one.run(pairs)) for one in runs])

    def outcome(self, calls: Sequence[tuple[_Outputs, _Outputs]]) -> Outcome:
        """The measures of each call, one after the other, and their errors; of each the float outputs and the others."""
        rows = measured(calls, self.guidance)
        errors = errors_of(calls, self.guidance, self._dimensions)
        return Outcome(tuple(value for row in rows for value in row), errors.numpy().tobytes())

    def _reruns(self, quantized: Quantized) -> tuple[Reruns, ...]:
        if quantized.family not in self._runs:
            # One family at a time: the values of a float run are most of the memory.
            self._runs.clear()
            self._runs[quantized.family] = tuple(
                Reruns(quantized.floats, one, self.limit_bytes) for one in self.inputs
            )
        return self._runs[quantized.family]


def errors_of(
    calls: Sequence[tuple[_Outputs, _Outputs]], guidance: tuple[int, int], dimensions: int
) -> torch.Tensor:
    """Errors of calls of one step over the norm of what they are errors of, so that squared norms are noise.

    Args:
        calls: As in `measured`.
        guidance: Likewise.
        dimensions: Of each call's error; one of more numbers is folded by `folded`.

    Returns:
        float32: the errors of all predictions, and then those of guidance, one for each call or one for a pair of them.
    """
    parts, branches = relative_errors(calls, guidance)
    return torch.cat([folded(one, dimensions) for one in (*parts, *branches)])


def relative_errors(
    calls: Sequence[tuple[_Outputs, _Outputs]], guidance: tuple[int, int]
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Errors as in `errors_of`, in float64 and all of their numbers: of each prediction, and of guidance. Gradients pass."""
    parts: list[torch.Tensor] = []
    branches: list[torch.Tensor] = []
    for reference, found in calls:
        share = 1 / math.sqrt(len(reference))
        each = [_relative(one, found[name]) * share for name, one in reference.items()]
        parts.append(torch.cat(each))
    firsts = [tuple(next(iter(side.values())).double() for side in one) for one in calls]
    if guidance[0] == _BRANCHES:
        for sides in firsts:
            one, other = (b - a for a, b in (side.chunk(_BRANCHES) for side in sides))
            branches.append(_relative(one, other))
    elif guidance == (1, _BRANCHES) and len(calls) == _BRANCHES:
        one, other = (a - b for a, b in zip(*firsts, strict=True))
        branches.append(_relative(one, other))
    return parts, branches


def folded(error: torch.Tensor, dimensions: int) -> torch.Tensor:
    """An error in fewer dimensions, with its own norm; inner products stay in expectation.

    Every number is added to one of the dimensions with a sign, both drawn by a fixed seed: the count sketch of Charikar, Chen
    and Farach-Colton (2002), whose inner products vary by about |a| |b| / sqrt(dimensions).
    """
    if error.numel() <= dimensions:
        return error.float()
    generator = torch.Generator().manual_seed(error.numel())
    places = torch.randint(dimensions, error.shape, generator=generator)
    signs = torch.randint(2, error.shape, generator=generator).mul_(2).sub_(1)
    small = torch.zeros(dimensions, dtype=error.dtype).index_add_(0, places, error * signs)
    norm = float(small.norm())
    return (small * (float(error.norm()) / norm if norm > 0 else 0.0)).float()


def _relative(reference: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
    one, other = reference.double().reshape(-1), found.double().reshape(-1)
    relative: torch.Tensor = (other - one) / one.norm()
    return relative


def measured(
    calls: Sequence[tuple[_Outputs, _Outputs]], guidance: tuple[int, int] = (1, 1)
) -> list[list[float]]:
    """The measures of calls of one step, a row for each.

    Args:
        calls: Of each the float outputs and the others.
        guidance: Copies of the latents in a batch, and calls with the same latents. Two copies are the branches of guidance,
            the unconditional one first; of single copies two calls are, the conditional one first.
    """
    rows = [dict.fromkeys(MEASURES, math.nan) for _ in calls]
    for row, (reference, found) in zip(rows, calls, strict=True):
        each = [relative_noise(one, found[name]) for name, one in reference.items()]
        row["prediction"] = sum(each) / len(each) if each else math.nan
    firsts = [tuple(next(iter(side.values())) for side in one) for one in calls]
    if guidance[0] == _BRANCHES:
        for row, sides in zip(rows, firsts, strict=True):
            halves = [side.chunk(_BRANCHES) for side in sides]
            _measure_branches(row, row, row, *zip(*halves, strict=True))
    elif guidance == (1, _BRANCHES) and len(calls) == _BRANCHES:
        (conditional, unconditional), last = rows, rows[1]
        _measure_branches(unconditional, conditional, last, firsts[1], firsts[0])
    return [[row[name] for name in MEASURES] for row in rows]


def _measure_branches(
    unconditional: dict[str, float],
    conditional: dict[str, float],
    both: dict[str, float],
    without: Sequence[torch.Tensor],
    with_prompt: Sequence[torch.Tensor],
) -> None:
    unconditional["unconditional"] = relative_noise(*without)
    conditional["conditional"] = relative_noise(*with_prompt)
    difference = [
        one.double() - other.double() for one, other in zip(with_prompt, without, strict=True)
    ]
    both["guidance"] = relative_noise(*difference)


def relative_noise(reference: torch.Tensor, found: torch.Tensor) -> float:
    """Squared error over squared reference, sum((x - r)^2) / sum(r^2); NaN where one is no number or the reference zero."""
    one, other = reference.double(), found.double()
    power = float(one.square().sum())
    error = float((other - one).square().sum())
    return (
        error / power if power > 0 and math.isfinite(error) and math.isfinite(power) else math.nan
    )


def _guidance(
    calls: Sequence[Mapping[str, torch.Tensor]], timestep: str | None, where: str
) -> tuple[int, int]:
    """Copies of the latents in the batch of a denoiser's call, and calls with the same latents; 1 for other graphs."""
    if timestep is None or timestep not in calls[0]:
        return 1, 1
    tracker = GuidanceTracker("both")
    for call in calls:
        tracker.rows(timestep_of(call[timestep]), call, where)
    return tracker.copies, tracker.calls
