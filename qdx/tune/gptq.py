"""Rounding column by column, each error made up for by the columns to come.

GPTQ: Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", 2022, algorithm 1.
With H = E[x x^T] the error of a row's output is (w - w') H (w - w')^T. When column i is rounded, what remains is least where
the columns behind it change by -(w_i - w'_i) / U_ii * U_i: U is the upper Cholesky factor of the inverse of H.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import torch

from qdx.exporter.errors import InvalidModel

if TYPE_CHECKING:
    from qdx.exporter.formats.code_grid import CodeGrid

__all__ = ["gptq", "ordered_factor", "rounded"]

_BLOCK: Final = 128
"""Columns whose errors reach those behind the block in one product."""


def gptq(
    weight: torch.Tensor,
    moments: torch.Tensor,
    grid: CodeGrid,
    *,
    damping: float = 0.01,
    act_order: bool = False,
) -> torch.Tensor:
    """Rounds the rows of a matrix.

    Args:
        weight: float32 [rows, columns].
        moments: E[x x^T] of what it multiplies, float32 [columns, columns].
        grid: What its elements may be. Scales are the quantizer's, chosen beforehand, so that the order of the columns is free.
        damping: Share of the mean power of the inputs that is added to each.
        act_order: Columns in falling order of their inputs' power.

    Returns:
        Places of levels of the grid, int64 [rows, columns].

    Raises:
        InvalidModel: The moments are not those of numbers, even with the damping.
    """
    return rounded(weight, grid, *ordered_factor(moments, damping=damping, act_order=act_order))


def ordered_factor(
    moments: torch.Tensor, *, damping: float, act_order: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """What of `gptq` depends on the inputs alone, for all weights and grids that meet them.

    Args:
        moments: As for `gptq`.
        damping: Likewise.
        act_order: Likewise.

    Returns:
        The order of the columns, int64 [columns], and in that order the upper Cholesky factor of the inverse moments, float32
        [columns, columns].

    Raises:
        InvalidModel: The moments are not those of numbers, even with the damping.
    """
    if not act_order:
        return torch.arange(len(moments)), _factor(moments.clone(), damping)
    order = torch.argsort(moments.diagonal(), descending=True, stable=True)
    return order, _factor(moments[order][:, order], damping)


def rounded(
    weight: torch.Tensor, grid: CodeGrid, order: torch.Tensor, factor: torch.Tensor
) -> torch.Tensor:
    """Rounds the rows of a matrix by what `ordered_factor` returned; see `gptq`."""
    left = weight[:, order].clone()  # what is still to be rounded, made up for what was
    grid = grid.select(lambda one: one[:, order])
    places = torch.empty(weight.shape, dtype=torch.int64)
    for start in range(0, weight.shape[1], _BLOCK):
        block = slice(start, min(start + _BLOCK, weight.shape[1]))
        rest = slice(block.stop, None)
        own, inner = left[:, block], factor[block, block]
        errors = torch.empty_like(own)
        for column in range(own.shape[1]):
            values = own[:, column]
            at = start + column
            here = grid.select(partial(torch.select, dim=1, index=at))
            places[:, at] = here.nearest(values)
            errors[:, column] = (values - here.values(places[:, at])) / inner[column, column]
            own[:, column:] -= torch.outer(errors[:, column], inner[column, column:])
        left[:, rest] -= errors @ factor[block, rest]
    found = torch.empty_like(places)
    found[:, order] = places
    return found


def _factor(moments: torch.Tensor, damping: float) -> torch.Tensor:
    """The upper Cholesky factor of the inverse; the moments are overwritten."""
    diagonal = moments.diagonal()
    # An input that is always zero: its column is free, and takes part in nothing.
    diagonal[diagonal == 0] = 1
    diagonal += damping * diagonal.mean()
    lower, failed = torch.linalg.cholesky_ex(moments)
    if not int(failed):
        inverse = torch.cholesky_inverse(lower)
        del lower
        upper: torch.Tensor
        upper, failed = torch.linalg.cholesky_ex(inverse, upper=True)
        if not int(failed):
            return upper
    raise InvalidModel(
        f"second moments with a damping of {damping:g} have no inverse",
        hint="raise `learning.damping` in the plan, such as to 0.05",
    )
