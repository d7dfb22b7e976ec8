"""Quantizing and reading back in one step, with gradients for values and scales.

Values: straight through where the grid holds them, nothing where it clips (Bengio, Leonard and Courville, "Estimating or
propagating gradients through stochastic neurons", 2013). Scales: Esser et al., "Learned Step Size Quantization", 2020,
equation 3, multiplied by 1 / sqrt(n q) of section 2.2, n being the elements that share the scale and q the grid's greatest
step above zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import torch

from qdx.exporter.dtypes import NumberType

__all__ = ["Levels", "fake_quantized"]

_FLOAT8: Final = torch.float8_e4m3fn


@dataclass(frozen=True)
class Levels:
    """What a scaled value may be.

    Attributes:
        low: The least, zero point included.
        high: The greatest, likewise.
        steps: How far the greatest is above zero.
        is_float: Numbers of an 8-bit float instead of whole ones.
    """

    low: float
    high: float
    steps: float
    is_float: bool = False

    @classmethod
    def of(cls, kind: NumberType, bounds: tuple[float, float] | None, zero: float) -> Levels:
        """Those of a type, or fewer of them.

        Args:
            kind: The type.
            bounds: The least and the greatest, where these are not the type's.
            zero: The least zero point that they are used with.
        """
        low, high = bounds or (kind.minimum, kind.maximum)
        return cls(float(low), float(high), max(1.0, high - zero), kind.is_float)

    def rounded(self, scaled: torch.Tensor) -> torch.Tensor:
        """The nearest level of each value within the ends, ties to even, float32."""
        if self.is_float:
            return scaled.to(_FLOAT8).to(torch.float32)
        return scaled.round()


class _FakeQuantized(torch.autograd.Function):
    """The one step; saved for the way back are the values and the scales alone."""

    @staticmethod
    def forward(
        ctx: Any,
        values: torch.Tensor,
        scale: torch.Tensor,
        zero: torch.Tensor,
        levels: Levels,
        factor: float,
    ) -> torch.Tensor:
        ctx.save_for_backward(values, scale, zero)
        ctx.levels, ctx.factor = levels, factor
        return _steps(values / scale, zero, levels) * scale

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        values, scale, zero = ctx.saved_tensors
        (gradient,) = gradients
        levels: Levels = ctx.levels
        scaled = values / scale
        steps = _steps(scaled, zero, levels)
        moved = scaled + zero
        inside = (moved >= levels.low) & (moved <= levels.high)
        of_scale = None
        if ctx.needs_input_grad[1]:
            each = gradient * torch.where(inside, steps - scaled, steps)
            of_scale = each.sum_to_size(scale.shape) * ctx.factor
        of_values = gradient * inside if ctx.needs_input_grad[0] else None
        return of_values, of_scale, None, None, None


def fake_quantized(
    values: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, levels: Levels
) -> torch.Tensor:
    """Returns (clamp(round(x / s) + z) - z) s, as artifacts compute it.

    Args:
        values: float32, any shape.
        scale: float32 above zero, of a shape that broadcasts to that of the values.
        zero: Zero points, whole numbers in float32, likewise.
        levels: What there is.
    """
    sharing = values.numel() / max(1, scale.numel())
    factor = 1 / math.sqrt(max(1.0, sharing * levels.steps))
    found: torch.Tensor = _FakeQuantized.apply(values, scale, zero, levels, factor)  # type: ignore[no-untyped-call]
    return found


def _steps(scaled: torch.Tensor, zero: torch.Tensor, levels: Levels) -> torch.Tensor:
    if levels.is_float:
        return levels.rounded(scaled.clamp(levels.low, levels.high))
    return (levels.rounded(scaled) + zero).clamp_(levels.low, levels.high) - zero
