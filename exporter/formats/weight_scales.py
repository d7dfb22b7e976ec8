"""Scales of a weight's rows: the values that a quantizer may use, and the ranges that it maps to them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import torch

from qdx.exporter.dtypes import NumberType, number_type
from qdx.exporter.errors import InternalError, InvalidModel
from qdx.exporter.formats.quantization import WeightQuantization
from qdx.exporter.formats.scales import SMALLEST_SCALE

__all__ = ["Grid", "row_qparams", "runs_of_rows"]

_CHUNK_ELEMENTS: Final = 1 << 22
"""Elements that quantizing holds in float32 copies at once: 16 MiB each."""
_COARSE_RATIOS: Final = tuple(0.05 * step for step in range(20, 5, -1))
_FINE_STEPS: Final = tuple(0.01 * step for step in (1, -1, 2, -2))


@dataclass(frozen=True)
class Grid:
    """The values that a weight may take.

    Attributes:
        kind: The dtype.
        minimum: Least value, which need not be the dtype's.
        maximum: Greatest value.
        zero_point: None where it depends on the range.
    """

    kind: NumberType
    minimum: int
    maximum: int
    zero_point: int | None

    @classmethod
    def of(cls, quantization: WeightQuantization) -> Grid:
        """The values of a quantizer.

        Symmetric integers of eight bits keep to [-127, 127] around the zero point: the same values on
        either side of zero. Those of fewer bits use every value that they have.
        """
        kind = number_type(quantization.dtype)
        if kind.is_float:
            return cls(kind, kind.minimum, kind.maximum, 0)
        reduced = quantization.reduce_range and kind.bits == 8
        if quantization.symmetric:
            middle = kind.middle
            steps = 63 if reduced else kind.maximum - middle
            least = kind.minimum if kind.bits < 8 else middle - steps
            return cls(kind, least, middle + steps, middle)
        if reduced:
            return cls(kind, -64 if kind.signed else 0, 63 if kind.signed else 127, None)
        return cls(kind, kind.minimum, kind.maximum, None)


def runs_of_rows(rows: torch.Tensor) -> Iterator[slice]:
    """Runs of whole rows within the limit of copies, at least one row each."""
    height = max(1, _CHUNK_ELEMENTS // max(1, rows.shape[1]))
    for start in range(0, len(rows), height):
        yield slice(start, start + height)


def row_qparams(
    rows: torch.Tensor, grid: Grid, *, observer: str, factor: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and zero point of each row, [rows, 1] in float32.

    Args:
        rows: The weight's rows in float32.
        grid: The values that they may take.
        observer: How each row's range is chosen.
        factor: What that is multiplied by.

    Raises:
        InvalidModel: A row is not finite.
        InternalError: The observer is not known.
    """
    if not rows.numel():
        ones = torch.ones(len(rows), 1)
        return ones, torch.full_like(ones, grid.zero_point or 0)
    low = rows.amin(dim=1, keepdim=True).clamp(max=0).double()
    high = rows.amax(dim=1, keepdim=True).clamp(min=0).double()
    if not bool(torch.isfinite(high - low).all()):
        raise InvalidModel(
            "holds NaN or infinity", hint="the weights are damaged; fetch the model again"
        )
    if observer == "minmax":
        return _affine(low * factor, high * factor, grid)
    if observer != "mse":
        raise InternalError(f"`{observer}` is not an observer of weights")
    ratio = torch.empty_like(low)
    for run in runs_of_rows(rows):
        ratio[run] = _best_ratio(rows[run], low[run], high[run], grid)
    return _affine(low * ratio * factor, high * ratio * factor, grid)


def _affine(low: torch.Tensor, high: torch.Tensor, grid: Grid) -> tuple[torch.Tensor, torch.Tensor]:
    """`choose_qparams` for many ranges at once; float64 in, float32 out."""
    if grid.zero_point is not None:
        span, steps = torch.maximum(-low, high), grid.maximum - grid.zero_point
    else:
        span, steps = high - low, grid.maximum - grid.minimum
    exact = (span / steps).clamp(min=SMALLEST_SCALE)
    scale = torch.where(span == 0, torch.ones_like(exact), exact).to(torch.float32)
    if grid.zero_point is not None:
        return scale, torch.full_like(scale, grid.zero_point)
    zero_point = torch.round(grid.minimum - low / scale.double())
    return scale, zero_point.clamp(grid.minimum, grid.maximum).to(torch.float32)


def _best_ratio(
    rows: torch.Tensor, low: torch.Tensor, high: torch.Tensor, grid: Grid
) -> torch.Tensor:
    """For each row, the ratio of its range that has the least squared error; the larger one of equals."""
    best = torch.ones_like(low)
    least = _squared_error(rows, *_affine(low, high, grid), grid)

    def attempt(ratio: torch.Tensor) -> None:
        nonlocal best, least
        error = _squared_error(rows, *_affine(low * ratio, high * ratio, grid), grid)
        better = error < least
        best, least = torch.where(better, ratio, best), torch.where(better, error, least)

    for ratio in _COARSE_RATIOS[1:]:
        attempt(torch.full_like(low, ratio))
    centre = best.clone()
    for step in _FINE_STEPS:
        attempt((centre + step).clamp(max=1.0))
    return best


def _squared_error(
    rows: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor, grid: Grid
) -> torch.Tensor:
    """Sum of squared differences for each row, [rows, 1] in float64."""
    total = torch.zeros(len(rows), 1, dtype=torch.float64)
    width = max(1, _CHUNK_ELEMENTS // len(rows))
    for start in range(0, rows.shape[1], width):
        columns = rows[:, start : start + width]
        values = columns / scale
        if grid.kind.is_float:
            values = values.clamp_(grid.minimum, grid.maximum)
            values = values.to(torch.float8_e4m3fn).to(torch.float32)
        else:
            values = values.round_().add_(zero_point).clamp_(grid.minimum, grid.maximum)
            values -= zero_point
        error = values.mul_(scale).sub_(columns).square_()
        total += error.sum(dim=1, keepdim=True, dtype=torch.float64)
    return total
