"""Floats in blocks as operators of graphs: what quantizes activations, and what reads MXFP8 back.

NVFP4 is read back by `qdx::dequantize` twice: the scales of blocks, and by these the elements.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import torch

from qdx.exporter.formats.block_floats import (
    MXFP8_BLOCK,
    NVFP4_BLOCK,
    Mxfp8,
    quantize_mxfp8,
    quantize_nvfp4,
)

__all__ = ["BLOCK_QUANTIZERS"]


@torch.library.custom_op("qdx::quantize_nvfp4", mutates_args=())
def _quantize_nvfp4(x: torch.Tensor, scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Elements and scales of blocks of a float32 tensor; see `Nvfp4`."""
    found = quantize_nvfp4(x, scale)
    return found.elements, found.block_scales


@_quantize_nvfp4.register_fake
def _(x: torch.Tensor, scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    del scale
    return torch.empty_like(x, dtype=torch.float8_e4m3fn), _empty_scales(
        x, NVFP4_BLOCK, torch.float8_e4m3fn
    )


@torch.library.custom_op("qdx::quantize_mxfp8", mutates_args=())
def _quantize_mxfp8(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Elements and exponents of blocks of a float32 tensor; see `Mxfp8`."""
    found = quantize_mxfp8(x)
    return found.elements, found.exponents


@_quantize_mxfp8.register_fake
def _(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty_like(x, dtype=torch.float8_e4m3fn), _empty_scales(
        x, MXFP8_BLOCK, torch.uint8
    )


@torch.library.custom_op("qdx::dequantize_mxfp8", mutates_args=())
def _dequantize_mxfp8(elements: torch.Tensor, exponents: torch.Tensor) -> torch.Tensor:
    """The float32 values of a tensor in MXFP8."""
    return Mxfp8(elements, exponents).dequantized()


@_dequantize_mxfp8.register_fake
def _(elements: torch.Tensor, exponents: torch.Tensor) -> torch.Tensor:
    del exponents
    return torch.empty_like(elements, dtype=torch.float32)


BLOCK_QUANTIZERS: Final[Mapping[str, Callable[..., Any]]] = MappingProxyType(
    {
        "quantize_nvfp4": torch.ops.qdx.quantize_nvfp4.default,
        "quantize_mxfp8": torch.ops.qdx.quantize_mxfp8.default,
    }
)
"""What quantizes an activation in blocks, by the names of their nodes."""


def _empty_scales(x: torch.Tensor, block: int, dtype: torch.dtype) -> torch.Tensor:
    return x.new_empty((*x.shape[:-1], x.shape[-1] // block), dtype=dtype)
