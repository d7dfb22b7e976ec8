"""Weights that are stored compressed and are dense when they are used.

Operations of one name have two forms: that of iOS 16, with packed bytes and the shape beside them, and
that of iOS 18, with elements of less than a byte, whose shape is that of the stored tensor. Arithmetic
is in float32, and what the program declares for the result rounds it.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qdx.backends.coreml.mil.arguments import axis_of, bounded, ints
from qdx.backends.coreml.mil.bits import unpack_bits
from qdx.backends.coreml.mil.registry import operation

_TAKEN_ELEMENTS: Final = 1 << 18


@operation("constexpr_cast", moves=True)
def constexpr_cast(source_val: Tensor, output_dtype: str) -> Tensor:
    if output_dtype not in {"fp32", "float32"}:
        raise ValueError(f"output_dtype {output_dtype}")
    return source_val.float()


@operation("constexpr_affine_dequantize", moves=True)
def constexpr_affine_dequantize(
    quantized_data: Tensor, zero_point: Tensor, scale: Tensor, axis: Tensor
) -> Tensor:
    """`scale * (quantized_data - zero_point)`, each a scalar or a vector along the axis."""
    along = axis_of(axis, 0, quantized_data.ndim)

    def spread(values: Tensor) -> Tensor:
        if values.ndim == 0:
            return values.float()
        if values.shape != (quantized_data.shape[along],):
            raise ValueError(f"parameters of shape {list(values.shape)} along axis {along}")
        return values.float().reshape(-1, *[1] * (quantized_data.ndim - 1 - along))

    return (quantized_data.float() - spread(zero_point)) * spread(scale)


@operation("constexpr_blockwise_shift_scale", moves=True)
def constexpr_blockwise_shift_scale(
    data: Tensor, scale: Tensor, offset: Tensor | None = None
) -> Tensor:
    """`scale * (data - offset)`; each axis has as many scales as blocks of equal size."""
    blocks = _blocks(list(data.shape), list(scale.shape))
    if offset is not None and offset.shape != scale.shape:
        raise ValueError(f"offset of shape {list(offset.shape)}, scale {list(scale.shape)}")
    values = data.float().reshape(blocks)
    if offset is not None:
        values = values - _one_per_block(offset.float())
    return (values * _one_per_block(scale.float())).reshape(data.shape)


@operation("constexpr_lut_to_dense", moves=True)
def constexpr_lut_to_dense(
    indices: Tensor,
    lut: Tensor,
    shape: Tensor | None = None,
    vector_axis: Tensor | None = None,
) -> Tensor:
    """Elements of tables; `shape` marks the form of iOS 16, with one table and packed indices."""
    if shape is not None:
        sizes = bounded(ints(shape, []))
        codes = _unpacked(indices, _bits(lut.numel()), sizes)
        return _looked_up(codes, lut.reshape(1, -1, 1), None).reshape(sizes)
    return _looked_up(indices, lut, vector_axis)


@operation("constexpr_sparse_to_dense", moves=True)
def constexpr_sparse_to_dense(
    nonzero_data: Tensor, mask: Tensor, shape: Tensor | None = None
) -> Tensor:
    """Values where the mask is set, zero elsewhere; `shape` marks the form of iOS 16."""
    if shape is not None:
        sizes = bounded(ints(shape, []))
        mask = _unpacked(mask, 1, sizes).reshape(sizes)
    return _dense(nonzero_data, mask)


@operation("constexpr_lut_to_sparse", moves=True)
def constexpr_lut_to_sparse(
    indices_mask: Tensor,
    indices_nonzero_data: Tensor,
    lut: Tensor,
    vector_axis: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The mask and the values of a palettized tensor whose indices are sparse."""
    dense = _looked_up(_dense(indices_nonzero_data, indices_mask), lut, vector_axis)
    mask = indices_mask
    if lut.shape[-1] > 1:
        axis = axis_of(vector_axis, 0, mask.ndim)
        mask = mask.repeat_interleave(lut.shape[-1], axis)
    return mask, dense[mask != 0]


@operation("constexpr_sparse_blockwise_shift_scale", moves=True)
def constexpr_sparse_blockwise_shift_scale(
    data_mask: Tensor, nonzero_data: Tensor, scale: Tensor, offset: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The mask and the values of a quantized tensor whose codes are sparse."""
    dense = constexpr_blockwise_shift_scale(_dense(nonzero_data, data_mask), scale, offset)
    return data_mask, dense[data_mask != 0]


def _dense(values: Tensor, mask: Tensor) -> Tensor:
    chosen = mask != 0
    if values.ndim != 1 or int(chosen.sum()) != len(values):
        raise ValueError(f"{int(chosen.sum())} places for values of shape {list(values.shape)}")
    dense = torch.zeros(mask.shape, dtype=values.dtype)
    dense[chosen] = values
    return dense


def _unpacked(data: Tensor, bits: int, shape: list[int]) -> Tensor:
    count = int(np.prod(shape, dtype=np.int64))
    return torch.from_numpy(unpack_bits(data.reshape(-1).numpy(), bits, count))


def _bits(entries: int) -> int:
    bits = entries.bit_length() - 1
    if not 1 <= bits <= 8 or 1 << bits != entries:
        raise ValueError(f"a table of {entries} entries, expected a power of two up to 256")
    return bits


def _looked_up(indices: Tensor, lut: Tensor, vector_axis: Tensor | None) -> Tensor:
    """Replaces indices by entries of their table.

    Args:
        indices: uint8, any shape.
        lut: Shape [tables along each axis of `indices`..., entries, size of an entry].
        vector_axis: Along which entries of more than one element are laid out.
    """
    entries, size = lut.shape[-2:]
    _bits(entries)
    groups = lut.shape[:-2]
    widths = _blocks(list(indices.shape), list(groups))[1::2]
    if int(indices.max()) >= entries:
        raise ValueError(f"index {int(indices.max())} into a table of {entries} entries")
    codes, tables = indices.numpy(), lut.numpy()
    found = np.empty((*codes.shape, size), tables.dtype)
    # One table at a time: indices stay bytes, instead of positions in all tables.
    for group in np.ndindex(*groups):
        block = tuple(
            slice(g * width, (g + 1) * width) for g, width in zip(group, widths, strict=True)
        )
        _take(tables[group], codes[block], found[block])
    dense = torch.from_numpy(found)
    if size == 1:
        return dense.squeeze(-1)
    if vector_axis is None:
        raise ValueError("entries of several elements without `vector_axis`")
    axis = axis_of(vector_axis, 0, indices.ndim)
    return dense.movedim(-1, axis + 1).flatten(axis, axis + 1)


def _take(table: NDArray[Any], codes: NDArray[np.uint8], out: NDArray[Any]) -> None:
    """Writes `table[codes]`, in parts: numpy widens indices to eight bytes on the way."""
    rows = max(1, _TAKEN_ELEMENTS * len(codes) // codes.size)
    for start in range(0, len(codes), rows):
        part = slice(start, start + rows)
        out[part] = table.take(codes[part], axis=0)


def _blocks(shape: list[int], counts: list[int]) -> list[int]:
    """A shape with each axis split in two: blocks, and elements of a block."""
    if len(shape) != len(counts) or any(
        count < 1 or size % count for size, count in zip(shape, counts, strict=True)
    ):
        raise ValueError(f"shape {shape} in {counts} blocks")
    return [part for size, n in zip(shape, counts, strict=True) for part in (n, size // n)]


def _one_per_block(values: Tensor) -> Tensor:
    """Values of blocks, shaped to broadcast against `_blocks`."""
    return values.reshape([part for size in values.shape for part in (size, 1)])
