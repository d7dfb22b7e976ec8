"""Rounding up or down, learned for all elements of a weight together.

AdaRound: Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", 2020. An element is lower + h (upper - lower) between the two levels around it, h = clamp(1.2 sigmoid(v) - 0.1, 0, 1) (equation
23), and a penalty 1 - |2h - 1|^b, whose b falls, drives every h to 0 or 1 (equation 24). The loss of a layer alone is
quadratic in its weights: of a row's error e it is e H e^T with the second moments H of its inputs, so that no input need be
kept. It is counted in parts of what the nearest levels lose, row by row. What the optimizer leaves is taken further by single
steps, see `descent`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

from qdx.tune.descent import descended

if TYPE_CHECKING:
    from qdx.exporter.formats.code_grid import CodeGrid

__all__ = ["adaround", "row_losses"]

_LOW: Final = -0.1
_HIGH: Final = 1.1
"""The stretched sigmoid's ends (Louizos et al. 2018)."""
_WARM_UP: Final = 0.2
"""Share of the steps without penalty."""
_SHARPEST: Final = 2.0
_SOFTEST: Final = 20.0
_RATE: Final = 0.02
_PENALTY: Final = 1.0
_BETAS: Final = (0.9, 0.999)
_TINY: Final = 1e-12


def adaround(
    weight: torch.Tensor, moments: torch.Tensor, grid: CodeGrid, *, steps: int = 1000
) -> torch.Tensor:
    """Rounds the rows of a matrix.

    No row loses more than with the nearest levels.

    Args:
        weight: float32 [rows, columns].
        moments: E[x x^T] of what it multiplies, float32 [columns, columns].
        grid: What its elements may be.
        steps: Of the optimizer (Adam: Kingma and Ba 2015).

    Returns:
        Places of levels of the grid, int64 [rows, columns].
    """
    nearest = grid.nearest(weight)
    below = grid.below(weight)
    lower = grid.values(below)
    gap = grid.values(below + 1) - lower
    plain = row_losses(weight, grid.values(nearest), moments)
    share = 1 / plain.clamp(min=_TINY)[:, None]
    shares = ((weight - lower) / gap).clamp(0.01, 0.99)
    variable = -torch.log((_HIGH - _LOW) / (shares - _LOW) - 1)
    first, second = torch.zeros_like(variable), torch.zeros_like(variable)
    scale = weight.shape[1]
    for step in range(1, steps + 1):
        squashed = torch.sigmoid(variable)
        soft = squashed * (_HIGH - _LOW) + _LOW
        inside = (soft > 0) & (soft < 1)
        soft.clamp_(0, 1)
        error = lower + soft * gap - weight
        slope = (error @ moments).mul_(gap).mul_(2 * share)
        progress = step / steps
        if progress > _WARM_UP:
            left = 1 - (progress - _WARM_UP) / (1 - _WARM_UP)
            power = _SHARPEST + (_SOFTEST - _SHARPEST) * left
            from_middle = 2 * soft - 1
            pull = from_middle.abs().pow_(power - 1).mul_(from_middle.sign()).mul_(-2 * power)
            slope += pull.mul_(_PENALTY / scale)
        slope.mul_(inside).mul_(squashed * (1 - squashed)).mul_(_HIGH - _LOW)
        first.lerp_(slope, 1 - _BETAS[0])
        second.lerp_(slope.square_(), 1 - _BETAS[1])
        unbiased = second.div(1 - _BETAS[1] ** step).sqrt_().add_(_TINY)
        variable.addcdiv_(first, unbiased, value=-_RATE / (1 - _BETAS[0] ** step))
    learned = below + (variable > 0).to(torch.int64)
    better = row_losses(weight, grid.values(learned), moments) < plain
    start = torch.where(better[:, None], learned, nearest)
    return descended(weight, start, moments, grid)


def row_losses(weight: torch.Tensor, rounded: torch.Tensor, moments: torch.Tensor) -> torch.Tensor:
    """What rounding loses of each row's output, E[((w - w') x)^2]: float32 [rows]."""
    error = weight - rounded
    return ((error @ moments) * error).sum(dim=1)
