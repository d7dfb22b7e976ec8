"""Weights as palettes: indices into a table of few values, one table for the weight or for each group of channels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

import torch

from qdx.exporter.dtypes import bits
from qdx.exporter.errors import InvalidModel
from qdx.exporter.formats.code_grid import CodeGrid
from qdx.exporter.formats.memory import remembered
from qdx.exporter.formats.palette_rows import nearest_entries, row_centres
from qdx.exporter.formats.quantization import WeightQuantization
from qdx.exporter.formats.rows import RowLayout
from qdx.exporter.graph.ir.learned_codes import LearnedCodes
from qdx.exporter.graph.ir.operators import dequantize, lut
from qdx.exporter.graph.ir.weights import LazyWeight

if TYPE_CHECKING:
    from qdx.exporter.formats.rounding import Rounding

__all__ = ["Palette", "derived_palette", "palette_grid", "palettize"]

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
        values: torch.Tensor = lut(self.indices, self.table, asked.axis, bits(asked.dtype))
        if self.scale is not None:
            values = dequantize(values, self.scale, None, asked.axis, asked.group, "int8")
        return values


def palettize(
    weight: torch.Tensor,
    quantization: WeightQuantization,
    rounding: Rounding | LearnedCodes | None = None,
) -> Palette:
    """Chooses tables with a small squared error, and the nearest entry for each element.

    The result depends on the weight alone, not on a seed or on the number of threads. A weight whose groups have
    no more distinct values than a table has entries stays exact as far as the table's dtype holds them.

    Args:
        weight: Any shape and float dtype.
        quantization: A palette: granularity `tensor`, or `grouped_channel` with `group` channels along `axis`.
        rounding: The indices themselves where they were learned; everything else takes the nearest entry.

    Raises:
        InvalidModel: The weight holds NaN or infinity, or values beyond the table's dtype.
        InternalError: The granularity does not fit the weight.
    """
    layout = RowLayout(tuple(weight.shape), quantization)
    rows = layout.rows(weight.to(torch.float32))
    tables = _tables(rows, quantization)
    found = _palette(layout, tables, rows, quantization)
    return (
        replace(found, indices=_learned(rounding, quantization))
        if isinstance(rounding, LearnedCodes)
        else found
    )


def palette_grid(weight: torch.Tensor, quantization: WeightQuantization) -> CodeGrid:
    """What the elements of a weight may be.

    Raises:
        InvalidModel, InternalError: As for `palettize`.
    """
    shape = tuple(weight.shape)
    layout = RowLayout(shape, quantization)
    tables = _tables(layout.rows(weight.to(torch.float32)), quantization).values
    levels = tables.repeat_interleave(shape[0] // len(tables), dim=0)
    width = bits(quantization.dtype)
    return CodeGrid(torch.ones(shape), torch.zeros(()), levels, False, 0, width)


def _learned(codes: LearnedCodes, quantization: WeightQuantization) -> torch.Tensor:
    return codes.read().clamp(max=2 ** bits(quantization.dtype) - 1)


def derived_palette(weight: LazyWeight, quantization: WeightQuantization) -> dict[str, LazyWeight]:
    """The indices, the tables and, where these are int8, the scales of a lazy weight, by suffix.

    The float weight is read when one of them is. Tables and scales are small and stay; indices are found
    again in each reading.

    Args:
        weight: The float weight.
        quantization: A palette.

    Returns:
        The indices under "", the tables under ".table" and the scales under ".scale".
    """
    layout = RowLayout(weight.shape, quantization)
    number = layout.row_count
    integers = quantization.lut_dtype == "int8"
    source = _Source(weight, quantization)
    shapes = {
        "": (weight.shape, torch.uint8, quantization.dtype),
        ".table": (
            (number, 2 ** bits(quantization.dtype)),
            torch.int8 if integers else torch.float32,
            quantization.lut_dtype,
        ),
    }
    if integers:
        shapes[".scale"] = (layout.parameter_shape, torch.float32, "float32")
    return {
        suffix: LazyWeight(weight.name + suffix, shape, dtype, partial(source.read, suffix), name)
        for suffix, (shape, dtype, name) in shapes.items()
    }


@dataclass(frozen=True)
class _Tables:
    """Tables of rows: as `Palette.table`, and the scales as float32 [groups, 1]."""

    table: torch.Tensor
    scale: torch.Tensor | None

    @property
    def values(self) -> torch.Tensor:
        """float32 [groups, entries]."""
        values = self.table.to(torch.float32)
        return values if self.scale is None else values * self.scale


class _Source:
    """What the lazy parts of one palette are read from."""

    def __init__(self, weight: LazyWeight, quantization: WeightQuantization) -> None:
        self._weight = weight
        self._quantization = quantization
        self._layout = RowLayout(weight.shape, quantization)
        self._known: _Tables | None = None

    def read(self, suffix: str) -> torch.Tensor:
        if not suffix and isinstance(self._weight.rounding, LearnedCodes):
            return _learned(self._weight.rounding, self._quantization)
        rows = None
        if self._known is None or not suffix:
            rows = self._layout.rows(self._weight.read(torch.float32))
        if self._known is None:
            assert rows is not None
            self._known = self._named(rows)
        tables = self._known
        if suffix == ".table":
            return tables.table
        if suffix == ".scale":
            assert tables.scale is not None, self._weight.name
            return self._layout.parameter(tables.scale)
        assert rows is not None
        return _palette(self._layout, tables, rows, self._quantization).indices

    def _named(self, rows: torch.Tensor) -> _Tables:
        try:
            return _tables(rows, self._quantization)
        except InvalidModel as error:
            raise InvalidModel(f"`{self._weight.name}`: {error.message}", hint=error.hint) from None


def _tables(rows: torch.Tensor, quantization: WeightQuantization) -> _Tables:
    """The tables of rows, in the type in which they are stored."""

    def choose() -> dict[str, torch.Tensor]:
        chosen = _chosen_tables(rows, quantization)
        return {
            "table": chosen.table,
            **({} if chosen.scale is None else {"scale": chosen.scale}),
        }

    found = remembered("tables", rows, quantization, choose)
    return _Tables(found["table"], found.get("scale"))


def _chosen_tables(rows: torch.Tensor, quantization: WeightQuantization) -> _Tables:
    number = 2 ** bits(quantization.dtype)
    if rows.numel():
        centres = row_centres(rows, number)
    else:
        centres = torch.zeros(len(rows), number, dtype=torch.float64)
    if quantization.lut_dtype != "int8":
        return _Tables(_rounded(centres, quantization.lut_dtype), None)
    scale = _scales(centres)
    table = (centres / scale.double()).round_().clamp_(-_STEPS, _STEPS).to(torch.int8)
    return _Tables(table, scale)


def _palette(
    layout: RowLayout, tables: _Tables, rows: torch.Tensor, quantization: WeightQuantization
) -> Palette:
    """The nearest entries of tables for the elements of rows."""
    indices = layout.restored(nearest_entries(rows, tables.values)).contiguous()
    scale = None if tables.scale is None else layout.parameter(tables.scale)
    return Palette(indices, tables.table, scale, quantization)


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
