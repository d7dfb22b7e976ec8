"""One weight: from its second moments and its grid to the codes that are stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from qdx.exporter.errors import InternalError
from qdx.exporter.formats.registry import format_of
from qdx.exporter.graph.ir.learned_codes import pack
from qdx.tune.adaround import adaround
from qdx.tune.gptq import ordered_factor, rounded

if TYPE_CHECKING:
    from qdx.exporter.formats.code_grid import CodeGrid
    from qdx.exporter.plan.schema.scheme import Weights
    from qdx.exporter.transforms.transform import Asked

__all__ = ["Factors", "solved"]

Factors = dict[tuple[int, float, bool], tuple[torch.Tensor, torch.Tensor]]
"""Of the moments of a weight, what `ordered_factor` made of each group, damping and order."""


def solved(
    weight: torch.Tensor, moments: torch.Tensor, asked: Asked, factors: Factors | None = None
) -> torch.Tensor:
    """The codes of a weight.

    Args:
        weight: [out, in / groups, ...].
        moments: E[x x^T] of the patches of each group, float32 [groups, columns, columns].
        asked: The method, how it learns, and the quantizer.
        factors: What other ways to learn from the same moments have computed already, to which this one adds.

    Returns:
        As `LearnedCodes.packed`.

    Raises:
        InvalidModel: The weight cannot be quantized, or the moments have no inverse.
    """
    values = weight.to(torch.float32)
    grid = format_of(asked.quantization.dtype).grid(values, asked.quantization)
    matrix = values.reshape(len(values), -1)
    flat = grid.select(lambda one: one.reshape(matrix.shape))
    height = len(matrix) // len(moments)
    factors = {} if factors is None else factors
    places = torch.cat([
        _rows(matrix[rows], one, flat.rows(rows), asked.scheme, number, factors)
        for number, one in enumerate(moments)
        for rows in (slice(number * height, (number + 1) * height),)
    ])  # fmt: skip
    return pack(grid.codes(places), grid.width)


def _rows(
    matrix: torch.Tensor,
    moments: torch.Tensor,
    grid: CodeGrid,
    scheme: Weights,
    group: int,
    factors: Factors,
) -> torch.Tensor:
    learning = scheme.learned_how
    if scheme.rounding == "gptq":
        key = group, learning.damping, learning.act_order
        if key not in factors:
            factors[key] = ordered_factor(
                moments, damping=learning.damping, act_order=learning.act_order
            )
        return rounded(matrix, grid, *factors[key])
    if scheme.rounding == "adaround":
        # Of a block the optimizer learns all weights together, from here on.
        steps = 0 if scheme.by_blocks else learning.steps
        return adaround(matrix, moments, grid, steps=steps)
    raise InternalError(f"rounding `{scheme.rounding}` learns from no moments")
