"""The operators `qdx::quantize` and `qdx::dequantize` in PyTorch, as ONNX defines QuantizeLinear 21, and `qdx::lut`.

q = saturate(round_half_to_even(x / scale) + zero_point), x = (q - zero_point) * scale; see
https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html. Four-bit integers live in eight-bit tensors, and so do
the indices of palettes.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from qdx.exporter.dtypes import number_type
from qdx.exporter.errors import InternalError

__all__ = ["CONTAINERS", "dequantize", "dequantize_tensor", "lut", "quantize", "quantize_tensor"]

FLOAT8 = "float8_e4m3fn"
CONTAINERS: dict[str, torch.dtype] = {
    name: getattr(torch, number_type(name).container)
    for name in ("int8", "uint8", "int4", "uint4", "int32", FLOAT8)
}
"""torch dtype that holds each quantized dtype."""
_PART = 1 << 18
"""Elements that are quantized at a time on the processor: a megabyte of float32."""


@torch.library.custom_op("qdx::quantize_tensor", mutates_args=())
def quantize_tensor(x: torch.Tensor, scale: float, zero_point: int, dtype: str) -> torch.Tensor:
    """Quantizes a float32 tensor of any shape with one scale; returns the dtype's container."""
    divisor = torch.tensor(scale, dtype=x.dtype)
    found = torch.empty_like(x, dtype=CONTAINERS[dtype])
    for source, target in _parts(x, found):
        target.copy_(_rounded(source / divisor, zero_point, dtype))
    return found


@quantize_tensor.register_fake
def _(x: torch.Tensor, scale: float, zero_point: int, dtype: str) -> torch.Tensor:
    del scale, zero_point
    return torch.empty_like(x, dtype=CONTAINERS[dtype])


@torch.library.custom_op("qdx::dequantize_tensor", mutates_args=())
def dequantize_tensor(q: torch.Tensor, scale: float, zero_point: int) -> torch.Tensor:
    """The float32 values that the integers stand for, one scale for all."""
    factor = torch.tensor(scale, dtype=torch.float32)
    found = torch.empty_like(q, dtype=torch.float32)
    for source, target in _parts(q, found):
        target.copy_(source).sub_(zero_point).mul_(factor)
    return found


@dequantize_tensor.register_fake
def _(q: torch.Tensor, scale: float, zero_point: int) -> torch.Tensor:
    del scale, zero_point
    return torch.empty_like(q, dtype=torch.float32)


@torch.library.custom_op("qdx::quantize", mutates_args=())
def quantize(
    x: torch.Tensor,
    scale: torch.Tensor,
    zero_point: torch.Tensor | None,
    axis: int,
    block: int,
    dtype: str,
) -> torch.Tensor:
    """Quantizes along an axis.

    Args:
        x: float32, any shape.
        scale: float32. Per channel (block 0) one value for each index of `axis`, shape [n]. Blocked, of
            x's rank, with ceil(n / block) entries along `axis`.
        zero_point: As `scale`, in the dtype's container; None for zero.
        axis: The dimension of x.
        block: Elements along `axis` that share a scale; 0 for one scale each index.
        dtype: A key of CONTAINERS.
    """
    spread = _spread(scale.to(x.dtype), x, axis, block)
    zero = 0 if zero_point is None else _spread(zero_point, x, axis, block)
    return _rounded(x / spread, zero, dtype).to(CONTAINERS[dtype])


@quantize.register_fake
def _(
    x: torch.Tensor,
    scale: torch.Tensor,
    zero_point: torch.Tensor | None,
    axis: int,
    block: int,
    dtype: str,
) -> torch.Tensor:
    del scale, zero_point, axis, block
    return torch.empty_like(x, dtype=CONTAINERS[dtype])


@torch.library.custom_op("qdx::dequantize", mutates_args=())
def dequantize(
    q: torch.Tensor,
    scale: torch.Tensor,
    zero_point: torch.Tensor | None,
    axis: int,
    block: int,
    dtype: str,
) -> torch.Tensor:
    """The float32 values that quantized ones stand for; arguments as in `quantize`."""
    del dtype
    values = q.to(torch.float32, copy=True)
    if zero_point is not None:
        values.sub_(_spread(zero_point, values, axis, block).to(torch.float32))
    return values.mul_(_spread(scale.to(torch.float32), values, axis, block))


@dequantize.register_fake
def _(
    q: torch.Tensor,
    scale: torch.Tensor,
    zero_point: torch.Tensor | None,
    axis: int,
    block: int,
    dtype: str,
) -> torch.Tensor:
    del scale, zero_point, axis, block, dtype
    return torch.empty_like(q, dtype=torch.float32)


@torch.library.custom_op("qdx::lut", mutates_args=())
def lut(indices: torch.Tensor, tables: torch.Tensor, axis: int, bits: int) -> torch.Tensor:
    """Looks values up in tables, one for each group of consecutive positions of an axis.

    Args:
        indices: uint8, any shape, each below 2 ** bits.
        tables: [groups, 2 ** bits], any dtype; the number of groups divides the size of `axis`, and one group is
            the whole tensor.
        axis: The dimension that groups divide.
        bits: Bits of an index, 1 to 8.

    Returns:
        The tables' dtype, of the indices' shape.
    """
    _check_tables(indices, tables, axis, bits)
    groups = len(tables)
    places = indices.to(torch.int32)
    if groups > 1:
        size = [1] * indices.dim()
        size[axis] = -1
        first = torch.arange(groups, dtype=torch.int32, device=places.device) << bits
        width = indices.shape[axis] // groups
        places += first.repeat_interleave(width).reshape(size)
    return tables.reshape(-1).index_select(0, places.reshape(-1)).reshape(indices.shape)


@lut.register_fake
def _(indices: torch.Tensor, tables: torch.Tensor, axis: int, bits: int) -> torch.Tensor:
    _check_tables(indices, tables, axis, bits)
    return torch.empty_like(indices, dtype=tables.dtype)


def _check_tables(indices: torch.Tensor, tables: torch.Tensor, axis: int, bits: int) -> None:
    groups, fits = len(tables), tuple(tables.shape[1:]) == (1 << bits,)
    if not fits or (groups != 1 and (not groups or indices.shape[axis] % groups)):
        raise InternalError(
            f"tables {list(tables.shape)} of {bits} bits do not fit axis {axis} of {list(indices.shape)}"
        )


def _spread(parameter: torch.Tensor, x: torch.Tensor, axis: int, block: int) -> torch.Tensor:
    """A scale or zero point in a shape that broadcasts against x."""
    if block:
        return parameter.repeat_interleave(block, dim=axis).narrow(axis, 0, x.shape[axis])
    shape = [1] * x.dim()
    shape[axis] = -1
    return parameter.reshape(shape)


def _rounded(scaled: torch.Tensor, zero_point: torch.Tensor | int, dtype: str) -> torch.Tensor:
    """What a scale has divided, in place: rounded to integers and cut to those of the dtype; 8-bit floats are only cut."""
    kind = number_type(dtype)
    if kind.is_float:
        return scaled.clamp_(kind.minimum, kind.maximum)
    zero = zero_point.to(scaled.dtype) if isinstance(zero_point, torch.Tensor) else zero_point
    return scaled.round_().add_(zero).clamp_(kind.minimum, kind.maximum)


def _parts(
    source: torch.Tensor, target: torch.Tensor
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Equal parts of two tensors, element by element, each small enough for the processor's caches."""
    in_caches = source.device.type == "cpu" and source.is_contiguous() and target.is_contiguous()
    if not in_caches or source.numel() <= _PART:
        yield source, target
        return
    parts = (torch.split(one.view(-1), _PART) for one in (source, target))
    yield from zip(*parts, strict=True)
