"""Weights in few bits as operations of constants, which Core ML expands when it loads or computes.

Each is made with float32 scales and tables: the change to float16 narrows them with the operation, and
a weight behind a cast would not be a constant any more.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import torch
from coremltools import target
from coremltools.converters.mil.mil import Builder as mb  # noqa: N813  # its name in every converter
from coremltools.converters.mil.mil import Var, types
from coremltools.converters.mil.mil.block import is_current_opset_version_compatible_with
from numpy.typing import NDArray

from qdx.backends.coreml.lower.stored_weights import StoredWeight
from qdx.exporter.errors import Refusal, TargetRefusal

__all__ = ["affine", "pack_bits", "palette"]

_BYTE: Final = 8
_CHUNK_ELEMENTS: Final = 1 << 20


def affine(
    stored: Var,
    scale: NDArray[np.float32],
    zero_point: NDArray[Any] | None,
    axis: int,
    dtype: str,
    *,
    name: str,
) -> Var:
    """(q - zero point) * scale.

    Args:
        stored: A constant of integers, or a palette of them.
        scale: Scalar; [n] along `axis`; or of the weight's rank, which divides its sizes.
        zero_point: As `scale`; None for zero.
        axis: The dimension of channels or blocks.
        dtype: `int8`, `uint8`, `int4` or `uint4`.
        name: Of the operation.

    Raises:
        TargetRefusal: The deployment target has no such weights.
    """
    rank = len(stored.shape)
    if is_current_opset_version_compatible_with(target.iOS18):
        data = stored if stored.val is None else _seen_as(stored.val, dtype)
        return mb.constexpr_blockwise_shift_scale(
            data=data,
            scale=_of_rank(scale, rank, axis),
            offset=None
            if zero_point is None
            else _seen_as(_of_rank(zero_point, rank, axis), dtype),
            name=name,
        )
    if dtype not in {"int8", "uint8"} or scale.ndim > 1 or stored.val is None:
        raise _too_old(name, "weights in four bits, in blocks, or palettes of integers")
    kind = np.dtype(dtype).type
    return mb.constexpr_affine_dequantize(
        quantized_data=stored.val,
        zero_point=kind(0) if zero_point is None else zero_point.astype(kind)[()],
        scale=scale[()],
        axis=np.int32(axis),
        name=name,
    )


def palette(
    indices: NDArray[np.uint8], tables: NDArray[Any], axis: int, bits: int, *, name: str
) -> Var:
    """tables[group of the channel][index].

    Args:
        indices: Of the weight's shape.
        tables: [groups, 2 ** bits], float32 or int8; groups are contiguous along `axis`.
        axis: The dimension of channels.
        bits: Of an index: 1, 2, 3, 4, 6 or 8.
        name: Of the operation.

    Raises:
        TargetRefusal: The deployment target has no such palettes.
    """
    groups, entries = tables.shape
    if is_current_opset_version_compatible_with(target.iOS18):
        shape = [1] * indices.ndim
        shape[axis] = groups
        return mb.constexpr_lut_to_dense(
            indices=_seen_as(indices, f"uint{bits}"),
            lut=np.asarray(tables).reshape(*shape, entries, 1),
            name=name,
        )
    if groups > 1 or bits == 3 or tables.dtype == np.int8:
        raise _too_old(name, "palettes of groups of channels, of three bits, or of integers")
    return mb.constexpr_lut_to_dense(
        indices=_packed(indices, bits),
        lut=np.asarray(tables)[0],
        shape=np.array(indices.shape, np.uint32),
        name=name,
    )


def pack_bits(values: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Values of few bits one after another, the lowest bit of a byte first, as `constexpr_lut_to_dense` wants.

    Args:
        values: Below 2 ** bits, any shape.
        bits: 1 to 8.

    Returns:
        [ceil(bits * n / 8)].
    """
    flat = values.reshape(-1)
    if bits == _BYTE:
        return flat
    pieces = []
    for start in range(0, flat.size, _CHUNK_ELEMENTS):  # whole bytes but for the last
        piece = flat[start : start + _CHUNK_ELEMENTS, None]
        pieces.append(
            np.packbits(
                np.unpackbits(piece, axis=1, count=bits, bitorder="little"), bitorder="little"
            )
        )
    return np.concatenate(pieces)


def _packed(indices: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    if not isinstance(indices, StoredWeight):
        return pack_bits(indices, bits)
    size = math.ceil(indices.size * bits / _BYTE)

    def read() -> torch.Tensor:
        return torch.from_numpy(pack_bits(indices.read(), bits))

    return StoredWeight.of(indices.name, (size,), np.dtype(np.uint8), read)


def _of_rank(parameter: NDArray[Any], rank: int, axis: int) -> NDArray[Any]:
    values = np.asarray(parameter[()])
    if values.ndim == rank and rank > 1:
        return values
    shape = [1] * rank
    shape[axis] = -1
    return values.reshape(shape)


def _seen_as(values: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Integers in coremltools' numpy type of a narrower one, unread if they are."""
    kind = np.dtype(types.nptype_from_builtin(types.string_to_builtin(dtype)))
    return values.seen_as(kind) if isinstance(values, StoredWeight) else values.astype(kind)


def _too_old(name: str, what: str) -> TargetRefusal:
    return TargetRefusal(
        f"`{name}`: {what} came with iOS 18",
        refusals=(Refusal(name, f"{what} came with iOS 18"),),
        hint="export for a target of iOS 18 or macOS 15, or ask for 8 bits per channel",
    )
