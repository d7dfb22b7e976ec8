"""A weight under training: float values, or low-rank updates of them, behind a quantizer whose scales are learned too.

Low-rank updates: He et al., "EfficientDM: Efficient Quantization-Aware Fine-Tuning of Low-Bit Diffusion Models", 2023; they are
added to the weight before it is quantized, so that nothing of them is left in what is stored.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import torch

from qdx.exporter.formats.affine import quantize_weight
from qdx.exporter.formats.given import GivenWeight
from qdx.exporter.formats.registry import format_of
from qdx.exporter.formats.rows import RowLayout
from qdx.exporter.formats.weight_scales import Grid
from qdx.tune.fake_quantization import Levels, fake_quantized

if TYPE_CHECKING:
    from qdx.exporter.formats.quantization import WeightQuantization
    from qdx.exporter.graph.ir.weights import LazyWeight

__all__ = ["TrainedWeight", "trained_weight"]

_SCALE: Final = ".scale"
_ZERO_POINT: Final = ".zero_point"


@dataclass(frozen=True)
class TrainedWeight:
    """One weight.

    Attributes:
        quantization: Its quantizer.
        leaves: What is trained, float32: `scale` [rows, 1] of the rows that share one; `values` in the weight's shape, or
            `up` [out, rank] and `down` [rank, in] of an update.
        units: By name of a leaf, what a step of the optimizer is measured by.
        frozen: The float weight beneath an update; None without one.
        zero: Zero points, float32 [rows, 1].
        levels: What scaled values may be.
        shape: The weight's.
    """

    quantization: WeightQuantization
    leaves: dict[str, torch.Tensor] = field(repr=False)
    units: dict[str, float]
    frozen: torch.Tensor | None = field(repr=False)
    zero: torch.Tensor = field(repr=False)
    levels: Levels
    shape: tuple[int, ...]

    @property
    def floats(self) -> torch.Tensor:
        """The values that are quantized, float32 in the weight's shape."""
        if self.frozen is None:
            return self.leaves["values"]
        update = self.leaves["up"] @ self.leaves["down"]
        return self.frozen + update.reshape(self.shape)

    def quantized(self) -> torch.Tensor:
        """What the stored weight stands for, float32 in its shape, with gradients."""
        layout = RowLayout(self.shape, self.quantization)
        rows = fake_quantized(
            layout.rows(self.floats), self.leaves["scale"], self.zero, self.levels
        )
        return layout.restored(rows)

    def given(self) -> GivenWeight:
        """What is stored."""
        layout = RowLayout(self.shape, self.quantization)
        grid = Grid.of(self.quantization)
        container: torch.dtype = getattr(torch, grid.kind.container)
        with torch.no_grad():
            scale = self.leaves["scale"].detach().cpu()
            zero = self.zero.cpu()
            scaled = layout.rows(self.floats.detach().cpu()) / scale
            if not grid.kind.is_float:
                scaled = scaled.round_().add_(zero)
            stored = layout.restored(scaled.clamp_(grid.minimum, grid.maximum).to(container))
        parts = {
            "": stored.contiguous(),
            _SCALE: layout.parameter(scale).contiguous(),
            _ZERO_POINT: layout.parameter(zero).to(container).contiguous(),
        }
        wanted = format_of(self.quantization.dtype).suffixes(self.quantization)
        return GivenWeight(self.quantization, {suffix: parts[suffix] for suffix in wanted})


def trained_weight(
    weight: LazyWeight,
    quantization: WeightQuantization,
    rank: int | None,
    seed: int,
    device: torch.device,
) -> TrainedWeight:
    """A weight as it is quantized without training, ready to learn.

    Args:
        weight: The float weight.
        quantization: Its quantizer, of integers or 8-bit floats.
        rank: Of updates; None trains the values themselves.
        seed: Of what an update begins with.
        device: Where it is trained.

    Raises:
        InvalidModel: It cannot be quantized.
    """
    values = weight.read(torch.float32)
    layout = RowLayout(tuple(values.shape), quantization)
    start = quantize_weight(values, quantization)
    scale = layout.column(start.scale).to(device).clone()
    zero = layout.column(start.zero_point).to(torch.float32)
    grid = Grid.of(quantization)
    unit = float(scale.mean())
    leaves = {"scale": scale.requires_grad_()}
    units = {"scale": unit}
    frozen = None
    floats = values.to(device).clone()
    if rank is None:
        leaves["values"] = floats.requires_grad_()
        units["values"] = unit
    else:
        frozen = floats
        outputs, inputs = len(values), values[0].numel()
        low = min(rank, outputs, inputs)
        generator = torch.Generator().manual_seed(seed)
        down = torch.randn(low, inputs, generator=generator) / math.sqrt(low)
        leaves["up"] = torch.zeros(outputs, low, device=device).requires_grad_()
        leaves["down"] = down.to(device).requires_grad_()
        units |= {"up": unit, "down": 1 / math.sqrt(low)}
    levels = Levels.of(grid.kind, (grid.minimum, grid.maximum), float(zero.min()))
    shape = tuple(values.shape)
    return TrainedWeight(quantization, leaves, units, frozen, zero.to(device), levels, shape)
