"""Weights in 8-bit floats with a scale beside them: the stored numbers times their scales are the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import torch

from qdx.exporter.errors import InvalidModel
from qdx.exporter.files import parse_json

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.safetensors_file import Checkpoint

__all__ = ["StoredReader", "scaled_reader"]

_EIGHT_BITS: Final = frozenset({"float8_e4m3fn", "float8_e5m2"})
# What a runtime divides a layer's inputs and answers by that computes in eight bits; no weight depends on it.
_INPUT_SCALES: Final = ("input_scale", "scale_input", "output_scale", "scale_output")
_MARKER: Final = "comfy_quant"


@dataclass(frozen=True)
class StoredReader:
    """Reads one stored weight.

    Attributes:
        name: The tensor's.
        read: Reads it: in the stored dtype, or in float32 where scales belong to it.
        taken: The names of the tensors that belong to it: itself, its scales.
    """

    name: str
    read: Callable[[], torch.Tensor] = field(repr=False)
    taken: tuple[str, ...]


def scaled_reader(checkpoint: Checkpoint, name: str) -> StoredReader:
    """What reads a stored weight, with its scale where one is stored beside it.

    The names are those that quantizers of diffusion models write: `NAME.weight_scale` and `NAME.scale_weight` hold one
    number, one for each output channel or one for each block; `NAME.weight_scale_inv` likewise, the inverse of what
    the weight was multiplied with, so that all of them multiply.

    Raises:
        InvalidModel: A scale's shape fits no blocks of the weight.
    """
    if checkpoint[name].dtype not in _EIGHT_BITS:
        return StoredReader(name, lambda: checkpoint.read(name), (name,))
    stem = name.removesuffix("weight")
    beside = [f"{stem}{suffix}" for suffix in _INPUT_SCALES] if stem != name else []
    beside = [tensor for tensor in beside if tensor in checkpoint]
    if stem != name and _is_eight_bit_marker(checkpoint, f"{stem}{_MARKER}"):
        beside.append(f"{stem}{_MARKER}")
    scale = next((found for found in _scale_names(name, stem) if found in checkpoint), None)
    if scale is None:
        return StoredReader(name, lambda: checkpoint.read(name), (name, *beside))
    blocks = _blocks(checkpoint, name, scale)

    def read() -> torch.Tensor:
        factors = checkpoint.read(scale).float()
        return checkpoint.read(name).float() * _spread(factors, blocks, checkpoint[name].shape)

    return StoredReader(name, read, (name, scale, *beside))


def _scale_names(name: str, stem: str) -> Iterator[str]:
    yield f"{name}_scale"
    yield f"{name}_scale_inv"
    if stem != name:
        yield f"{stem}scale_weight"


def _blocks(checkpoint: Checkpoint, name: str, scale: str) -> tuple[int, ...]:
    """How many of the weight's entries share a scale, by dimension of the weight."""
    shape, counts = checkpoint[name].shape, checkpoint[scale].shape
    if not counts or counts == (1,):
        return tuple(shape)
    if len(counts) <= len(shape):
        padded = (*counts, *(1,) * (len(shape) - len(counts)))
        sizes = [_block(length, count) for length, count in zip(shape, padded, strict=True)]
        if None not in sizes:
            return tuple(size for size in sizes if size is not None)
    raise InvalidModel(
        f"`{checkpoint.file_of(scale)}`: scale `{scale}` has shape {list(counts)}, expected one scale, one for each "
        f"output channel or one for each block of `{name}`, which has shape {list(shape)}",
        hint="the weights are quantized in a way that qdx does not read; take the original model",
    )


def _block(length: int, count: int) -> int | None:
    """The size of blocks of which `count` cover a dimension: all of it, one entry, or the one power of two that does."""
    if count == 1:
        return length
    if count == length:
        return 1
    sizes = (1 << power for power in range(1, length.bit_length()))
    return next((size for size in sizes if -(-length // size) == count), None)


def _spread(factors: torch.Tensor, blocks: tuple[int, ...], shape: tuple[int, ...]) -> torch.Tensor:
    """Scales repeated until they broadcast with the weight; a dimension that has one stays one."""
    factors = factors.reshape((*factors.shape, *(1,) * (len(shape) - factors.dim())))
    for axis, (block, length) in enumerate(zip(blocks, shape, strict=True)):
        if 1 < factors.shape[axis] < length:
            factors = factors.repeat_interleave(block, dim=axis).narrow(axis, 0, length)
    return factors


def _is_eight_bit_marker(checkpoint: Checkpoint, marker: str) -> bool:
    """Whether a tensor of text says that the weight beside it is in 8-bit floats, and no more that would matter."""
    if marker not in checkpoint or checkpoint[marker].dtype != "uint8":
        return False
    text = bytes(checkpoint.read(marker).flatten().tolist()).decode("utf-8", "replace")
    source = f"{checkpoint.file_of(marker)}:{marker}"
    said: Mapping[str, object] = parse_json(text, source=source)
    known = {"format", "full_precision_matrix_mult"}
    return said.get("format") in _EIGHT_BITS and said.keys() <= known
