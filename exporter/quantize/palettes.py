"""Weights as palettes: indices into a table of few values, one table for the weight or for each group of channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch

from qdx.exporter.errors import InvalidModel
from qdx.exporter.graph.operators import dequantize, lut
from qdx.exporter.quantize.palette_rows import nearest_entries, row_centres
from qdx.exporter.quantize.placement import WeightQuantization
from qdx.exporter.quantize.rows import Layout

__all__ = ["Palette", "palettize"]

_STEPS: Final = 127
"""Of tables of int8 on either side of zero."""
_SMALLEST_HALF: Final = 2.0**-24


@dataclass(frozen=True)
class Palette:
    """A palettized weight.

    Attributes:
        indices: uint8, of the weight's shape.
        table: [groups, 2 ** bits] in rising order: float32 with values that the table's dtype holds, or int8.
        scale: For tables of int8, float32 that float16 holds too: a scalar for one table, and for groups of
            the weight's rank with one entry for each group along the axis. None for float tables.
        quantization: What was asked for.
    """

    indices: torch.Tensor
    table: torch.Tensor
    scale: torch.Tensor | None
    quantization: WeightQuantization

    def dequantized(self) -> torch.Tensor:
        """The float32 values that the indices stand for, of the weight's shape."""
        asked = self.quantization
        values = lut(self.indices, self.table, asked.axis, asked.palette_bits)
        if self.scale is None:
            return values
        return dequantize(values, self.scale, None, asked.axis, asked.group, "int8")


def palettize(weight: torch.Tensor, quantization: WeightQuantization) -> Palette:
    """Chooses tables with a small squared error, and the nearest entry for each element.

    The result depends on the weight alone, not on a seed or on the number of threads. A weight whose groups have
    no more distinct values than a table has entries stays exact as far as the table's dtype holds them.

    Args:
        weight: Any shape and float dtype.
        quantization: A palette: granularity `tensor`, or `grouped_channel` with `group` channels along `axis`.

    Raises:
        InvalidModel: The weight holds NaN or infinity, or values beyond the table's dtype.
        InternalError: The granularity does not fit the weight.
    """
    layout = Layout(tuple(weight.shape), quantization)
    rows = layout.rows(weight.to(torch.float32))
    if not rows.numel():
        tables = torch.zeros(len(rows), 2**quantization.palette_bits, dtype=torch.float64)
    else:
        tables = row_centres(rows, 2**quantization.palette_bits)
    if quantization.lut_dtype == "int8":
        scale = _scales(tables)
        table = (tables / scale.double()).round_().clamp_(-_STEPS, _STEPS).to(torch.int8)
        values = table.to(torch.float32) * scale
        parameter: torch.Tensor | None = layout.parameter(scale)
    else:
        table = values = _rounded(tables, quantization.lut_dtype)
        parameter = None
    indices = layout.restored(nearest_entries(rows, values)).contiguous()
    return Palette(indices, table, parameter, quantization)


def _rounded(tables: torch.Tensor, dtype: str) -> torch.Tensor:
    """Tables in float32 with values of another float dtype."""
    rounded = tables.to(getattr(torch, dtype)).to(torch.float32)
    if not bool(torch.isfinite(rounded).all()):
        peak = float(tables.abs().max())
        raise InvalidModel(
            f"holds values of up to {peak:.4g}, more than {dtype} can hold",
            hint="store the component's weights as float32, or leave this weight out",
        )
    return rounded


def _scales(tables: torch.Tensor) -> torch.Tensor:
    """Scales of tables of int8, float32 [groups, 1]: the least float16 by which 127 reaches every entry."""
    exact = tables.abs().amax(dim=1, keepdim=True) / _STEPS
    half = exact.to(torch.float16)
    short = half.double() < exact
    half = torch.where(short, torch.nextafter(half, torch.full_like(half, torch.inf)), half)
    if not bool(torch.isfinite(half).all()):
        raise InvalidModel(
            f"holds values of up to {float(exact.max()) * _STEPS:.4g}, more than int8 with a scale of "
            "float16 can hold",
            hint="take float tables for it",
        )
    half = torch.where(exact == 0, torch.ones_like(half), half.clamp(min=_SMALLEST_HALF))
    return half.to(torch.float32)
