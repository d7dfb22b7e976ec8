"""Weights in blocks of floats, NVFP4 and MXFP8: lazy parts of a lazy weight."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

import torch

from qdx.exporter.dtypes import number_type
from qdx.exporter.errors import InternalError, InvalidModel
from qdx.exporter.formats.block_floats import (
    MXFP8_BLOCK,
    NVFP4_BLOCK,
    Mxfp8,
    Nvfp4,
    nvfp4_scale,
    quantize_mxfp8,
    quantize_nvfp4,
    search_nvfp4,
)
from qdx.exporter.formats.code_grid import CodeGrid, float_levels
from qdx.exporter.formats.derived import DerivedParts
from qdx.exporter.formats.weight_scales import runs_of_rows
from qdx.exporter.graph.ir.learned_codes import LearnedCodes
from qdx.exporter.graph.ir.weights import LazyWeight

if TYPE_CHECKING:
    from qdx.exporter.formats.quantization import WeightQuantization
    from qdx.exporter.formats.rounding import Rounding

__all__ = ["block_grid", "block_weight", "derived_blocks"]

_FLOAT8: Final = torch.float8_e4m3fn


def block_weight(
    weight: torch.Tensor,
    quantization: WeightQuantization,
    rounding: Rounding | LearnedCodes | None = None,
) -> Nvfp4 | Mxfp8:
    """Quantizes a matrix whose columns are divided into blocks, some rows at a time.

    Args:
        weight: The matrix.
        quantization: The quantizer.
        rounding: The elements themselves where they were learned; everything else rounds to the nearest.

    Raises:
        InvalidModel: The weight holds NaN or infinity.
        InternalError: It is no matrix, blocks lie along its rows, or they do not divide it.
    """
    if weight.dim() != 2 or quantization.axis != 1:
        raise InternalError(f"{quantization} does not fit the shape {list(weight.shape)}")
    if not bool(torch.isfinite(weight).all()):
        raise InvalidModel(
            "holds NaN or infinity", hint="the weights are damaged; fetch the model again"
        )
    runs = list(runs_of_rows(weight))
    if quantization.dtype == "nvfp4":
        searched = quantization.observer == "mse"
        scale = nvfp4_scale(weight, searched=searched)
        quantize = search_nvfp4 if searched else quantize_nvfp4
        fours = [quantize(weight[run], scale) for run in runs]
        elements = _elements([each.elements for each in fours], "float4_e2m1fn", rounding)
        return Nvfp4(elements, torch.cat([each.block_scales for each in fours]), scale)
    eights = [quantize_mxfp8(weight[run]) for run in runs]
    elements = _elements([each.elements for each in eights], "float8_e4m3fn", rounding)
    return Mxfp8(elements, torch.cat([each.exponents for each in eights]))


def _elements(
    nearest: list[torch.Tensor], dtype: str, rounding: Rounding | LearnedCodes | None
) -> torch.Tensor:
    if not isinstance(rounding, LearnedCodes):
        return torch.cat(nearest)
    levels = float_levels(dtype)
    return levels[rounding.read().to(torch.int64).clamp_(max=len(levels) - 1)].to(_FLOAT8)


def block_grid(weight: torch.Tensor, quantization: WeightQuantization) -> CodeGrid:
    """What the elements of a matrix may be.

    Raises:
        InvalidModel, InternalError: As for `block_weight`.
    """
    found = block_weight(weight, quantization)
    if isinstance(found, Nvfp4):
        block, dtype = NVFP4_BLOCK, "float4_e2m1fn"
        scales = found.block_scales.to(torch.float32) * found.scale
    else:
        block, dtype = MXFP8_BLOCK, "float8_e4m3fn"
        # What the format reads back for elements of one is its scale.
        ones = replace(found, elements=torch.ones_like(found.elements))
        scales = ones.dequantized()[..., ::block]
    scale = scales.repeat_interleave(block, dim=-1)
    width = number_type(dtype).bits
    return CodeGrid(scale, torch.zeros(()), float_levels(dtype), False, 0, width)


def derived_blocks(weight: LazyWeight, quantization: WeightQuantization) -> dict[str, LazyWeight]:
    """The parts of a lazy weight in blocks of floats, by suffix.

    The float weight is read when one of them is, and once where they are read one after the other.

    Returns:
        The elements under "", and for NVFP4 the scales of blocks under ".block_scale" and that of the tensor under
        ".scale", for MXFP8 the exponents under ".exponent".
    """
    rows, columns = weight.shape
    shapes: dict[str, tuple[tuple[int, ...], torch.dtype, str]]
    if quantization.dtype == "nvfp4":
        shapes = {
            "": (weight.shape, _FLOAT8, "float4_e2m1fn"),
            ".block_scale": ((rows, columns // NVFP4_BLOCK), _FLOAT8, "float8_e4m3fn"),
            ".scale": ((), torch.float32, "float32"),
        }
    else:
        shapes = {
            "": (weight.shape, _FLOAT8, "float8_e4m3fn"),
            ".exponent": ((rows, columns // MXFP8_BLOCK), torch.uint8, "float8_e8m0fnu"),
        }
    source = DerivedParts(
        weight, lambda loaded: _parts(block_weight(loaded, quantization, weight.rounding))
    )
    return {
        suffix: LazyWeight(weight.name + suffix, shape, dtype, partial(source.read, suffix), name)
        for suffix, (shape, dtype, name) in shapes.items()
    }


def _parts(found: Nvfp4 | Mxfp8) -> dict[str, torch.Tensor]:
    if isinstance(found, Nvfp4):
        return {"": found.elements, ".block_scale": found.block_scales, ".scale": found.scale}
    return {"": found.elements, ".exponent": found.exponents}
