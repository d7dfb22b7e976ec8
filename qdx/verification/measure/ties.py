"""What errors that are allowed change of a pipeline that chooses whole numbers, such as tokens, by what is answered.

Of two tokens that are as likely as each other the least error decides, and the picture is another one afterwards. So the
reference runs again with noise on every answer, of the size that the bound on components allows and of no more than rounding
makes: where that makes it choose otherwise, an artifact that differs from it by as much did nothing wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import torch

from qdx.exporter.measure.metrics import Metric, finite_or_none, metrics_of
from qdx.verification.measure.picture import PipelineResult, compare_products

if TYPE_CHECKING:
    from qdx.runtime.generate import Products
    from qdx.runtime.reference import RecordedCall, RecordedMethod

__all__ = [
    "ROUNDING_DB",
    "Noise",
    "Outcome",
    "Ties",
    "chooses",
    "first_other_choice",
    "measure_ties",
    "misses_a_bound",
]

_DRAWS: Final = 4
ROUNDING_DB: Final = 50.0
"""What floats of sixteen bits are held to. A plan may allow larger errors; tokens that these change are a loss of quality."""
_LEAST_RANK: Final = 2
"""Of tokens and of what is computed, [batch, length, ...]; timesteps and sizes have less."""


@dataclass(frozen=True)
class Ties:
    """The reference against itself with noise on what its components answer.

    Attributes:
        sqnr_db: Of every answer.
        where: The first method that is given other whole numbers, as `component.method`.
        index: Its call.
        pipeline: What the reference made with the noise against what it made without.
    """

    sqnr_db: float
    where: str
    index: int
    pipeline: PipelineResult = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """The same as plain JSON data; what is not a number becomes null."""
        return {
            "sqnr_db": self.sqnr_db,
            "where": self.where,
            "index": self.index,
            **{m.name: finite_or_none(self.pipeline.value(m.name)) for m in metrics_of("pipeline")},
        }


class Noise:
    """Adds normal noise to tensors of floats.

    Args:
        sqnr_db: How far below each tensor's own power the noise's is.
        seed: Of the noise.
    """

    def __init__(self, sqnr_db: float, seed: int) -> None:
        self._share = 10 ** (-sqnr_db / 20)
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor with noise; as it is where it holds no floats."""
        if not tensor.is_floating_point():
            return tensor
        noise = torch.randn(tensor.shape, generator=self._generator).to(tensor)
        return tensor + noise * (self._share * tensor.square().mean().sqrt())


Outcome = tuple[Mapping[str, "RecordedMethod"], "Products"]
"""The calls of a run, by `component.method`, and what it made."""


def measure_ties(
    reference: Outcome, sqnr_db: float, again: Callable[[Noise], Outcome]
) -> Ties | None:
    """Runs the reference with noise, a few times; the run that chose otherwise and differs most, or None where none did.

    Args:
        reference: What it did without.
        sqnr_db: Of every answer with noise.
        again: Runs it with noise.
    """
    records, products = reference
    found: list[Ties] = []
    for seed in range(_DRAWS):
        noisy_records, noisy_products = again(Noise(sqnr_db, seed))
        other = first_other_choice(records, noisy_records)
        if other is not None:
            changed = compare_products(products, noisy_products)
            found.append(Ties(sqnr_db, *other, replace(changed, reference={}, artifact={})))
    return min(found, key=lambda one: one.pipeline.psnr_db or math.nan, default=None)


def chooses(records: Mapping[str, RecordedMethod]) -> bool:
    """Whether a method takes both whole numbers, which differ from call to call, and what another has computed."""
    return any(_takes_choices(method.calls) for method in records.values())


def first_other_choice(
    reference: Mapping[str, RecordedMethod], other: Mapping[str, RecordedMethod]
) -> tuple[str, int] | None:
    """The first method, in order of first use, that two runs give other whole numbers, and its first such call."""
    for where, method in reference.items():
        found = other.get(where)
        if found is None:
            continue
        for one, two in zip(method.calls, found.calls, strict=False):
            if any(
                not torch.equal(tensor, two.inputs[name]) for name, tensor in _whole(one).items()
            ):
                return where, one.index
    return None


def misses_a_bound(result: PipelineResult, bounds: Iterable[tuple[Metric, float]]) -> bool:
    """Whether a finished picture misses a bound on it; one that could not be compared misses none."""
    if result.error:
        return False
    for metric, bound in bounds:
        value = result.value(metric.name)
        if value is not None and (value < bound if metric.better == "more" else value > bound):
            return True
    return False


def _takes_choices(calls: tuple[RecordedCall, ...]) -> bool:
    first = calls[0]
    computed = any(
        tensor.is_floating_point() and tensor.dim() >= _LEAST_RANK
        for tensor in first.inputs.values()
    )
    return computed and any(
        call.inputs[name].shape != tensor.shape or not torch.equal(call.inputs[name], tensor)
        for name, tensor in _whole(first).items()
        for call in calls[1:]
    )


def _whole(call: RecordedCall) -> dict[str, torch.Tensor]:
    found = {name: call.inputs[name] for name in call.inputs}
    return {
        name: tensor
        for name, tensor in found.items()
        if not tensor.is_floating_point()
        and not tensor.is_complex()
        and tensor.dtype != torch.bool
        and tensor.dim() >= _LEAST_RANK
    }
