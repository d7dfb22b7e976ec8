"""Rounding up or down, learned for all elements of a weight together.

AdaRound: Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", 2020. An element is lower + h (upper - lower) between the two levels around it, h = clamp(1.2 sigmoid(v) - 0.1, 0, 1) (equation
23), and a penalty 1 - |2h - 1|^b, whose b falls, drives every h to 0 or 1 (equation 24). The loss of a layer alone is
quadratic in its weights: of a row's error e it is e H e^T with the second moments H of its inputs, so that no input need be
kept. It is counted in parts of what the nearest levels lose, row by row.

Inputs that go together make this loss long and narrow, and the optimizer slow: columns in falling order (`gptq`) lose less in
a fraction of the time. So both are begun with, what they leave is taken further by single steps (`descent`), and each row has
the better one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

from qdx.tune.descent import descended
from qdx.tune.gptq import gptq

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

    No row loses more than with the nearest levels, nor than with `gptq`.

    Args:
        weight: float32 [rows, columns].
        moments: E[x x^T] of what it multiplies, float32 [columns, columns].
        grid: What its elements may be.
        steps: Of the optimizer (Adam: Kingma and Ba 2015); none leaves the better of `gptq` and the nearest levels.

    Returns:
        Places of levels of the grid, int64 [rows, columns].

    Raises:
        InvalidModel: As for `gptq`.
    """
    starts = [grid.nearest(weight), gptq(weight, moments, grid, act_order=True)]
    if steps:
        starts.append(_optimized(weight, moments, grid, steps))
    best = starts[0]
    least = torch.full((len(weight),), torch.inf)
    for start in starts:
        found = descended(weight, start, moments, grid)
        lost = row_losses(weight, grid.values(found), moments)
        better = lost < least
        best = torch.where(better[:, None], found, best)
        least = torch.where(better, lost, least)
    return best


def _optimized(
    weight: torch.Tensor, moments: torch.Tensor, grid: CodeGrid, steps: int
) -> torch.Tensor:
    below = grid.below(weight)
    lower = grid.values(below)
    gap = grid.values(below + 1) - lower
    plain = row_losses(weight, grid.values(grid.nearest(weight)), moments)
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
    return below + (variable > 0).to(torch.int64)


def row_losses(weight: torch.Tensor, rounded: torch.Tensor, moments: torch.Tensor) -> torch.Tensor:
    """What rounding loses of each row's output, E[((w - w') x)^2]: float32 [rows]."""
    error = weight - rounded
    return ((error @ moments) * error).sum(dim=1)
