"""Single steps that lower the loss of a layer, one element of every row at a time, until none does.

With the error e = w' - w of a row and the second moments H of its inputs the loss is e H e^T. A step d of element j changes
it by d (2 (e H)_j + d H_jj): the best one of a row is found in one look, and e H follows by one row of H.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

if TYPE_CHECKING:
    from qdx.exporter.formats.code_grid import CodeGrid

__all__ = ["descended"]

_ROUNDS_A_COLUMN: Final = 2
"""Steps of a row at most, for each of its elements."""
_LEAST_GAIN: Final = 1e-5
"""Of a row's loss; less is lost in rounding."""


def descended(
    weight: torch.Tensor, places: torch.Tensor, moments: torch.Tensor, grid: CodeGrid
) -> torch.Tensor:
    """Moves elements to the next level up or down as long as a row's loss becomes less.

    Args:
        weight: float32 [rows, columns].
        places: Of levels of the grid, int64 [rows, columns]; they stay as they are.
        moments: E[x x^T] of what the weight multiplies, float32 [columns, columns].
        grid: What its elements may be.

    Returns:
        Places of no greater loss, int64 [rows, columns].
    """
    found = places.clone()
    last = grid.levels.shape[-1] - 1
    now = grid.values(found)
    error = now - weight
    slope = error @ moments
    power = moments.diagonal()
    least = -_LEAST_GAIN * (slope * error).sum(dim=1)
    up, down = (grid.values((found + one).clamp(0, last)) - now for one in (1, -1))
    rows = torch.arange(len(weight))
    for _ in range(_ROUNDS_A_COLUMN * weight.shape[1]):
        own = slope[rows].mul_(2)
        changes = [step[rows] * (own + step[rows] * power) for step in (up, down)]
        best = torch.minimum(*changes)
        change, columns = best.min(dim=1)
        kept = change < least[rows]
        if not bool(kept.any()):
            break
        upward = (changes[0] <= changes[1]).gather(1, columns[:, None])[:, 0][kept]
        rows, columns = rows[kept], columns[kept]
        step = torch.where(upward, up[rows, columns], down[rows, columns])
        slope[rows] += step[:, None] * moments[columns]
        found[rows, columns] += torch.where(upward, 1, -1)
        _renew(grid, found, rows, columns, (up, down), last)
    return found


def _renew(
    grid: CodeGrid,
    places: torch.Tensor,
    rows: torch.Tensor,
    columns: torch.Tensor,
    steps: tuple[torch.Tensor, torch.Tensor],
    last: int,
) -> None:
    """What the next steps of moved elements are."""
    here = grid.elements(rows, columns)
    moved = places[rows, columns]
    now = here.values(moved)
    for step, by in zip(steps, (1, -1), strict=True):
        step[rows, columns] = here.values((moved + by).clamp(0, last)) - now
