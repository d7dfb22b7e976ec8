"""What low-rank adapters add to weights, one weight at a time, when it is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from qdx.exporter.graph.ir.weights import LazyWeight, LazyWeights

__all__ = ["Adapters", "Delta", "lora_digests", "merged"]


@dataclass(frozen=True)
class Delta:
    """What one file adds to the weight of one layer: `factor * up @ down`.

    Attributes:
        down: Rank by inputs, in float32; of a convolution with its kernel.
        up: Outputs by rank.
        factor: Scale, and alpha over the rank.
    """

    down: torch.Tensor
    up: torch.Tensor
    factor: float

    def added_to(self, weight: torch.Tensor) -> torch.Tensor:
        """The weight and what comes to it, in float32."""
        product = self.up.flatten(1) @ self.down.flatten(1)
        return weight.to(torch.float32) + self.factor * product.reshape(weight.shape)


@dataclass(frozen=True)
class Adapters:
    """What files of adapters add to a pipeline.

    Attributes:
        layers: By component and path of the layer, one for each file that has it.
        records: SHA-256 and scale of each file, in the order in which they were given.
    """

    layers: Mapping[str, Mapping[str, tuple[Delta, ...]]] = field(repr=False)
    records: tuple[tuple[str, float], ...]

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of each file, see `lora_digests`."""
        return lora_digests(self.records)


def lora_digests(records: Sequence[tuple[str, float]]) -> dict[str, str]:
    """SHA-256 of files of adapters by a name that tells order and scale: a model with them is another than without."""
    return {f"lora {n} at {scale!r}": digest for n, (digest, scale) in enumerate(records)}


def merged(weights: LazyWeights, layers: Mapping[str, tuple[Delta, ...]]) -> LazyWeights:
    """The weights with what adapters add to them; each is added up when it is read, and kept by nobody.

    Args:
        weights: Of one component.
        layers: What is added, by path of the layer.
    """
    if not layers:
        return weights
    changed = {
        name: _adapted(weights[name], deltas)
        for path, deltas in layers.items()
        for name in (f"{path}.weight",)
    }
    return LazyWeights({**weights, **changed}, aliases=weights.aliases)


def _adapted(weight: LazyWeight, deltas: tuple[Delta, ...]) -> LazyWeight:
    def load() -> torch.Tensor:
        total = weight.load()
        for delta in deltas:
            total = delta.added_to(total)
        return total

    return replace(weight, load=load)
