"""Weights as integers: scales by tensor, channel or block, rounding, and lazy weights of the result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch

from qdx.exporter.dtypes import number_type
from qdx.exporter.formats.code_grid import CodeGrid, float_levels
from qdx.exporter.formats.derived import DerivedParts
from qdx.exporter.formats.memory import remembered
from qdx.exporter.formats.quantization import WeightQuantization
from qdx.exporter.formats.rows import RowLayout
from qdx.exporter.formats.weight_scales import Grid, row_qparams, runs_of_rows
from qdx.exporter.graph.ir.learned_codes import LearnedCodes
from qdx.exporter.graph.ir.weights import LazyWeight

if TYPE_CHECKING:
    from qdx.exporter.formats.rounding import Rounding

__all__ = [
    "QuantizedTensor",
    "affine_grid",
    "derived_weights",
    "quantize_weight",
    "scaled_channels",
]


_QUICK: Final = "minmax"
"""The observer that costs no more than finding out which weight it is."""


@dataclass(frozen=True)
class QuantizedTensor:
    """A quantized weight.

    Attributes:
        values: In the dtype's container, of the weight's shape.
        scale: float32; a scalar for the tensor, [n] for channels, and for blocks of the weight's rank
            with ceil(n / block) entries along the axis.
        zero_point: As `scale`, in the dtype's container.
        quantization: What was asked for.
    """

    values: torch.Tensor
    scale: torch.Tensor
    zero_point: torch.Tensor
    quantization: WeightQuantization

    def dequantized(self) -> torch.Tensor:
        """The float32 values that the integers stand for, of the weight's shape."""
        layout = RowLayout(tuple(self.values.shape), self.quantization)
        rows = layout.rows(self.values.to(torch.float32))
        scale, zero_point = layout.column(self.scale), layout.column(self.zero_point)
        return layout.restored((rows - zero_point.to(torch.float32)) * scale)


def quantize_weight(
    weight: torch.Tensor,
    quantization: WeightQuantization,
    *,
    rounding: Rounding | LearnedCodes | None = None,
) -> QuantizedTensor:
    """Quantizes a weight: q = clamp(rounding(w / scale) + zero_point).

    Symmetric integers of eight bits keep to [-127, 127] around the zero point, with `reduce_range` to
    [-63, 63]. A channel or block of zeros gets the scale 1. The observer `mse` shrinks the range of each
    channel or block to the ratio with the least mean squared error. `range_factor` multiplies what the observer chose.

    Computed in float32, some rows at a time: copies of the whole weight would cost more than the rest of
    an export.

    Args:
        weight: Any shape and float dtype.
        quantization: The dtype, the granularity and the observer.
        rounding: How scaled weights become whole numbers, None for the nearest, ties to even; float8 rounds to its
            own values. Or the stored values themselves.

    Raises:
        InvalidModel: The weight holds NaN or infinity.
        InternalError: The granularity is not known or does not fit the weight.
    """
    layout = RowLayout(tuple(weight.shape), quantization)
    rows = layout.rows(weight)
    grid = Grid.of(quantization)
    container: torch.dtype = getattr(torch, grid.kind.container)
    values = torch.empty(rows.shape, dtype=container)
    scale, zero_point = _chosen(rows, grid, quantization)
    codes = layout.rows(rounding.read()) if isinstance(rounding, LearnedCodes) else None
    if grid.kind.is_float or isinstance(rounding, LearnedCodes):
        rounding = None
    # A method goes by the weight's shape, so it takes all rows at once.
    for run in runs_of_rows(rows) if rounding is None else [slice(None)]:
        part = rows[run].to(torch.float32)
        if quantization.observer == _QUICK:
            scale[run], zero_point[run] = row_qparams(
                part, grid, observer=_QUICK, factor=quantization.range_factor
            )
        if codes is not None:
            values[run] = _decoded(codes[run], grid)
            continue
        scaled = part / scale[run]
        if rounding is not None:
            scaled = layout.rows(rounding(layout.restored(scaled)))
        if not grid.kind.is_float:
            scaled = scaled.round_().add_(zero_point[run])
        values[run] = scaled.clamp_(grid.minimum, grid.maximum).to(container)
    return QuantizedTensor(
        layout.restored(values).contiguous(),
        layout.parameter(scale),
        layout.parameter(zero_point).to(container),
        quantization,
    )


def _decoded(codes: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Stored values, in the dtype's container, of what was learned; what no quantizer stores becomes the nearest that one does."""
    container: torch.dtype = getattr(torch, grid.kind.container)
    if grid.kind.is_float:
        levels = float_levels(grid.kind.name)
        return levels[codes.to(torch.int64).clamp_(max=len(levels) - 1)].to(container)
    found = codes.to(torch.int16).add_(grid.kind.minimum)
    return found.clamp_(grid.minimum, grid.maximum).to(container)


def affine_grid(weight: torch.Tensor, quantization: WeightQuantization) -> CodeGrid:
    """What the elements of a weight may be.

    Raises:
        InvalidModel, InternalError: As for `quantize_weight`.
    """
    found = quantize_weight(weight, quantization)
    grid = Grid.of(quantization)
    layout = RowLayout(tuple(weight.shape), quantization)
    shape = layout.rows(weight).shape
    scale = layout.restored(layout.column(found.scale).expand(shape))
    zero = torch.zeros(())
    if not grid.kind.is_float:
        zero = layout.restored(layout.column(found.zero_point).to(torch.float32).expand(shape))
    levels = torch.arange(grid.minimum, grid.maximum + 1, dtype=torch.float32)
    if grid.kind.is_float:
        levels = float_levels(grid.kind.name)
    first = 0 if grid.kind.is_float else grid.minimum - grid.kind.minimum
    return CodeGrid(scale, zero, levels, not grid.kind.is_float, first, grid.kind.bits)


def _chosen(
    rows: torch.Tensor, grid: Grid, quantization: WeightQuantization
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scales and zero points of all rows, [rows, 1] in float32; still to be filled for a quick observer."""

    def choose() -> dict[str, torch.Tensor]:
        scale, zero_point = torch.empty(len(rows), 1), torch.empty(len(rows), 1)
        for run in runs_of_rows(rows):
            part = rows[run].to(torch.float32)
            scale[run], zero_point[run] = row_qparams(
                part, grid, observer=quantization.observer, factor=quantization.range_factor
            )
        return {"scale": scale, "zero_point": zero_point}

    if quantization.observer == _QUICK:
        return torch.empty(len(rows), 1), torch.empty(len(rows), 1)
    found = remembered("scales", rows, quantization, choose)
    return found["scale"], found["zero_point"]


def derived_weights(weight: LazyWeight, quantization: WeightQuantization) -> dict[str, LazyWeight]:
    """The integers, the scales and the zero points of a lazy weight, as lazy weights by suffix.

    The float weight is read when one of them is. The last weight's result is kept until another weight
    is read, so that the three, read one after the other, cost one pass.

    Args:
        weight: The float weight; it knows how it is rounded.
        quantization: The quantizer.

    Returns:
        The integers under "", the scales under ".scale" and the zero points under ".zero_point".
    """
    shape = RowLayout(weight.shape, quantization).parameter_shape
    container: torch.dtype = getattr(torch, number_type(quantization.dtype).container)

    def quantized(loaded: torch.Tensor) -> dict[str, torch.Tensor]:
        found = quantize_weight(loaded, quantization, rounding=weight.rounding)
        return {"": found.values, ".scale": found.scale, ".zero_point": found.zero_point}

    source = DerivedParts(weight, quantized)

    def part(suffix: str, shape: tuple[int, ...], dtype: torch.dtype) -> LazyWeight:
        stands_for = "float32" if suffix == ".scale" else quantization.dtype
        return LazyWeight(
            weight.name + suffix, shape, dtype, lambda: source.read(suffix), stands_for
        )

    return {
        "": part("", weight.shape, container),
        ".scale": part(".scale", shape, torch.float32),
        ".zero_point": part(".zero_point", shape, container),
    }


def scaled_channels(weight: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """A weight with each input channel multiplied, in float32.

    Args:
        weight: [out, in / groups, ...], of a linear operation or a convolution with any number of groups.
        factors: [in].
    """
    groups = len(factors) // weight.shape[1]
    rest = (1,) * (weight.dim() - 2)
    spread = factors.to(torch.float32).reshape(groups, 1, weight.shape[1], *rest)
    parts = weight.to(torch.float32).reshape(groups, -1, *weight.shape[1:])
    return (parts * spread).reshape(weight.shape)
