"""Floats of 4 and 8 bits in blocks with scales of their own: NVFP4 and MXFP8.

NVFP4 is 4-bit floats (E2M1) in blocks of 16. Each block has a scale in 8-bit floats (E4M3), and the whole tensor one in
float32, chosen so that the largest scale of a block is the largest number of E4M3. MXFP8 is 8-bit floats (E4M3) in
blocks of 32, each with a power of two (E8M0) for a scale; see the OCP Microscaling Formats specification 1.0.
Blocks lie along the last dimension.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch

from qdx.exporter.dtypes import number_type
from qdx.exporter.errors import InternalError

__all__ = [
    "MXFP8_BLOCK",
    "NVFP4_BLOCK",
    "Mxfp8",
    "Nvfp4",
    "nvfp4_scale",
    "quantize_mxfp8",
    "quantize_nvfp4",
    "search_nvfp4",
]

NVFP4_BLOCK: Final = number_type("nvfp4").block
MXFP8_BLOCK: Final = number_type("mxfp8").block
_FLOAT4_MAX: Final = float(number_type("float4_e2m1fn").maximum)
_FLOAT8_MAX: Final = float(number_type("float8_e4m3fn").maximum)
_FLOAT8_LEAST: Final = 2.0**-9
_FLOAT8_LAST: Final = 0x7E
"""Code of the largest number of E4M3; positive numbers follow each other as their codes do."""
_BIAS: Final = 127
_SEARCHED_FROM: Final = 7.0
"""What the largest value of a block may become by the least scale that a search tries; it is clipped to 6."""
_SEARCHED_CODES: Final = 9
"""Scales that a search tries. An octave of E4M3 is eight codes: by the last of them the largest value becomes 3.5."""
_SEARCHED_TOP: Final = 4.0
"""What the largest value of a tensor may become at least, where scales are searched."""


@dataclass(frozen=True)
class Nvfp4:
    """A tensor in NVFP4.

    Attributes:
        elements: [..., K] float8_e4m3fn, which holds every number of E2M1.
        block_scales: [..., K / 16] float8_e4m3fn, greater than zero.
        scale: Scalar float32, greater than zero.
    """

    elements: torch.Tensor
    block_scales: torch.Tensor
    scale: torch.Tensor

    def dequantized(self) -> torch.Tensor:
        """The values in float32, [..., K]: element x (block scale x scale)."""
        blocks = _blocks(self.elements.to(torch.float32), NVFP4_BLOCK)
        scales = self.block_scales.to(torch.float32) * self.scale
        return (blocks * scales[..., None]).flatten(-2)


@dataclass(frozen=True)
class Mxfp8:
    """A tensor in MXFP8.

    Attributes:
        elements: [..., K] float8_e4m3fn.
        exponents: [..., K / 32] uint8; a block's scale is 2 to the power of this less 127.
    """

    elements: torch.Tensor
    exponents: torch.Tensor

    def dequantized(self) -> torch.Tensor:
        """The values in float32, [..., K]."""
        blocks = _blocks(self.elements.to(torch.float32), MXFP8_BLOCK)
        powers = self.exponents.to(torch.int32) - _BIAS
        return torch.ldexp(blocks, powers[..., None]).flatten(-2)


def nvfp4_scale(values: torch.Tensor, *, searched: bool = False) -> torch.Tensor:
    """The scale of a tensor in NVFP4, scalar float32: amax / (6 x 448), and 1 for zeros.

    Where scales of blocks are searched it is amax / (4 x 448), so that the largest block has a choice too.
    """
    if not values.numel():
        return torch.ones(())
    top = _SEARCHED_TOP if searched else _FLOAT4_MAX
    scale = values.abs().amax().to(torch.float32) / (top * _FLOAT8_MAX)
    # Of zeros, or of numbers that float32 cannot divide so far.
    return torch.where(scale == 0, torch.ones(()), scale)


def quantize_nvfp4(values: torch.Tensor, scale: torch.Tensor | None = None) -> Nvfp4:
    """Quantizes to NVFP4: scale = amax / (6 x 448), block scale = E4M3(block's amax / 6 / scale).

    Rounded to nearest, ties to even, in float32. A block whose scale would be zero gets the least of E4M3, so that
    every scale is greater than zero.

    Args:
        values: [..., K] of any float dtype; K is a multiple of 16.
        scale: Scalar float32, of values that were seen before; larger ones are clipped. None for that of these.

    Raises:
        InternalError: K is no multiple of 16.
    """
    blocks = _blocks(values.to(torch.float32), NVFP4_BLOCK)
    scale = nvfp4_scale(blocks) if scale is None else scale
    largest = blocks.abs().amax(dim=-1)
    wanted = (largest / _FLOAT4_MAX / scale).clamp(_FLOAT8_LEAST, _FLOAT8_MAX)
    block_scales = wanted.to(torch.float8_e4m3fn)
    return _nvfp4(blocks, block_scales, scale)


def search_nvfp4(values: torch.Tensor, scale: torch.Tensor | None = None) -> Nvfp4:
    """Quantizes to NVFP4 with that scale of each block which has the least squared error; of equals the least one.

    Numbers of E2M1 are 0.5 apart up to 2 and 2 apart from 4 on, so that a block often loses less with its largest value
    on 4 than on 6 (Cook et al., "Four Over Six: More Accurate NVFP4 Quantization with Adaptive Block Scaling", 2025).
    Here every number of E4M3 is tried by which it becomes 7, clipped to 6, to 3.5, where the numbers start over
    with half the scale.

    Args:
        values: [..., K] of any float dtype; K is a multiple of 16.
        scale: Scalar float32, that of the whole tensor of which these are a part. None for that of these.

    Raises:
        InternalError: K is no multiple of 16.
    """
    blocks = _blocks(values.to(torch.float32), NVFP4_BLOCK)
    scale = nvfp4_scale(blocks, searched=True) if scale is None else scale
    # In units of the tensor's scale squares neither vanish nor overflow.
    units = blocks / scale
    wanted = (units.abs().amax(dim=-1) / _SEARCHED_FROM).clamp(_FLOAT8_LEAST, _FLOAT8_MAX)
    first = wanted.to(torch.float8_e4m3fn).view(torch.uint8)
    best, least = first, torch.full_like(wanted, torch.inf)
    for step in range(_SEARCHED_CODES):
        codes = (first + step).clamp_(max=_FLOAT8_LAST)
        steps = codes.view(torch.float8_e4m3fn).to(torch.float32)[..., None]
        error = _float4(units / steps).mul_(steps).sub_(units).square_().sum(dim=-1)
        better = error < least
        best, least = torch.where(better, codes, best), torch.where(better, error, least)
    return _nvfp4(blocks, best.view(torch.float8_e4m3fn), scale)


def quantize_mxfp8(values: torch.Tensor) -> Mxfp8:
    """Quantizes to MXFP8: a block's scale is the least power of two that keeps its amax within 448.

    Elements are rounded to nearest, ties to even. The scale of zeros is 1.

    Args:
        values: [..., K] of any float dtype; K is a multiple of 32.

    Raises:
        InternalError: K is no multiple of 32.
    """
    blocks = _blocks(values.to(torch.float32), MXFP8_BLOCK)
    largest = blocks.abs().amax(dim=-1)
    fraction, exponent = torch.frexp(largest)  # fraction in [0.5, 1): 448 is 0.875 x 2^9
    powers = exponent - 9 + (fraction > _FLOAT8_MAX / 512)
    powers = torch.where(largest > 0, powers, torch.zeros_like(powers)).clamp(-_BIAS, _BIAS)
    scaled = torch.ldexp(blocks, -powers[..., None]).clamp_(-_FLOAT8_MAX, _FLOAT8_MAX)
    return Mxfp8(scaled.to(torch.float8_e4m3fn).flatten(-2), (powers + _BIAS).to(torch.uint8))


def _blocks(values: torch.Tensor, block: int) -> torch.Tensor:
    if not values.dim() or values.shape[-1] % block:
        raise InternalError(f"blocks of {block} do not divide the shape {list(values.shape)}")
    return values.reshape(*values.shape[:-1], values.shape[-1] // block, block)


def _nvfp4(blocks: torch.Tensor, block_scales: torch.Tensor, scale: torch.Tensor) -> Nvfp4:
    """The nearest elements of blocks whose scales are known."""
    steps = block_scales.to(torch.float32) * scale
    # A product below float32's numbers would divide by zero; what it scales is below them too.
    scaled = torch.where(steps[..., None] == 0, torch.zeros(()), blocks / steps[..., None])
    return Nvfp4(_float4(scaled).to(torch.float8_e4m3fn).flatten(-2), block_scales, scale)


def _float4(values: torch.Tensor) -> torch.Tensor:
    """The nearest 4-bit floats, in float32; of two equally near ones, that of the even code.

    They are 0.5 apart below 2, 1 apart below 4, and 2 apart up to 6.
    """
    size = values.abs()
    spacing = torch.where(size < 2, 0.5, torch.where(size < 4, 1.0, 2.0))
    nearest = size.div_(spacing).round_().mul_(spacing).clamp_(max=_FLOAT4_MAX)
    return nearest.copysign_(values)
