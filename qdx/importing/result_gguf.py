"""GGUF: blocks of whole numbers with a scale each. What has no minimum beside the scale is carried exactly.

The layouts of blocks are those of ggml (`ggml-common.h`, `block_q4_0` and its like). Scales of some types are negative; the integers then change their sign,
and of Q4_0 they have a zero point of one, so that eight steps lie above zero instead of below.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch

from qdx.exporter.formats.given import GivenWeight
from qdx.importing.gguf_file import GgufFile
from qdx.importing.result import Found, by_block

__all__ = ["read_gguf"]

_FLOATS: Final = frozenset({"F32", "F16", "BF16"})
_MINIMA: Final = "each block has a minimum beside its scale, which no whole zero point stands for"


def read_gguf(file: GgufFile) -> Found:
    """Takes all quantized weights of a file apart; their names are the file's."""
    found = Found()
    for name, tensor in file.tensors.items():
        if tensor.kind in _FLOATS:
            continue
        reader = _READERS.get(tensor.kind)
        if reader is None:
            found.say("refused", name, f"{tensor.kind}: {_MINIMA}")
        elif len(tensor.shape) != 2:
            found.say("refused", name, f"{tensor.kind} of {list(tensor.shape)}; blocks are of matrices")  # fmt: skip
        else:
            blocks = torch.frombuffer(bytearray(file.read(name)), dtype=torch.uint8)
            found.weights[name] = reader(blocks, tensor.shape[0])
    return found


def _halves(blocks: torch.Tensor, at: int) -> torch.Tensor:
    """The float16 at an offset of each block, float32 [blocks, 1]."""
    return blocks[:, at : at + 2].contiguous().view(torch.float16).float()


def _made(
    dtype: str, values: torch.Tensor, scale: torch.Tensor, rows: int, zero: torch.Tensor | None = None
) -> GivenWeight:  # fmt: skip
    """Integers [blocks, n] with scales [blocks, 1] as a matrix; a block of zeros has the scale 1."""
    silent = scale == 0
    values = torch.where(silent, 0 if zero is None else zero, values)
    scale = torch.where(silent, torch.ones_like(scale), scale)
    shaped = scale.reshape(rows, -1)
    return by_block(
        dtype,
        values.to(torch.int8).reshape(rows, -1),
        shaped,
        None if zero is None else zero.to(torch.int8).reshape(shaped.shape),
    )


def _turned(dtype: str, values: torch.Tensor, scale: torch.Tensor, rows: int) -> GivenWeight:
    """As `_made`; integers under a negative scale change their sign, for which their type has room."""
    values = values.to(torch.int16)
    return _made(dtype, torch.where(scale < 0, -values, values), scale.abs(), rows)


def _q8_0(data: torch.Tensor, rows: int) -> GivenWeight:
    blocks = data.reshape(-1, 34)
    return _turned("int8", blocks[:, 2:].contiguous().view(torch.int8), _halves(blocks, 0), rows)


def _q4_0(data: torch.Tensor, rows: int) -> GivenWeight:
    blocks = data.reshape(-1, 18)
    nibbles = blocks[:, 2:]
    values = torch.cat((nibbles & 15, nibbles >> 4), dim=1).to(torch.int16) - 8
    scale = _halves(blocks, 0)
    negative = scale < 0
    # Of -8 to 7 under a negative scale come -7 to 8: the zero point -1 makes room for 8.
    zero = torch.where(negative, -1, 0)
    return _made("int4", torch.where(negative, -values - 1, values), scale.abs(), rows, zero)


def _q5_0(data: torch.Tensor, rows: int) -> GivenWeight:
    blocks = data.reshape(-1, 22)
    nibbles = blocks[:, 6:]
    fifth = (blocks[:, 2:6].unsqueeze(-1) >> torch.arange(8, dtype=torch.uint8)) & 1
    low = torch.cat((nibbles & 15, nibbles >> 4), dim=1).to(torch.int16)
    values = (low | (fifth.reshape(len(blocks), 32).to(torch.int16) << 4)) - 16
    return _turned("int8", values, _halves(blocks, 0), rows)


def _q6_k(data: torch.Tensor, rows: int) -> GivenWeight:
    blocks = data.reshape(-1, 210)
    low, high = blocks[:, :128].reshape(-1, 2, 64), blocks[:, 128:192].reshape(-1, 2, 32)
    fours = torch.stack((low[:, :, :32] & 15, low[:, :, 32:] & 15, low[:, :, :32] >> 4, low[:, :, 32:] >> 4), dim=2)  # fmt: skip
    twos = torch.stack([(high >> shift) & 3 for shift in (0, 2, 4, 6)], dim=2)
    values = (fours.to(torch.int16) | (twos.to(torch.int16) << 4)) - 32
    scales = blocks[:, 192:208].contiguous().view(torch.int8).float() * _halves(blocks, 208)
    return _turned("int8", values.reshape(-1, 16), scales.reshape(-1, 1), rows)


def _q3_k(data: torch.Tensor, rows: int) -> GivenWeight:
    blocks = data.reshape(-1, 110)
    mask, twos, packed = blocks[:, :32], blocks[:, 32:96], blocks[:, 96:108]
    low = torch.stack([(twos.reshape(-1, 2, 32) >> shift) & 3 for shift in (0, 2, 4, 6)], dim=2)
    third = torch.stack([(mask >> shift) & 1 for shift in range(8)], dim=1).reshape(-1, 2, 4, 32)
    values = low.to(torch.int16) - torch.where(third.bool(), 0, 4)
    four = torch.cat((packed[:, :8] & 15, packed[:, :8] >> 4), dim=1)
    upper = torch.cat([(packed[:, 8:] >> shift) & 3 for shift in (0, 2, 4, 6)], dim=1)
    steps = (four.to(torch.int16) | (upper.to(torch.int16) << 4)) - 32
    scales = steps.float() * _halves(blocks, 108)
    return _turned("int4", values.reshape(-1, 16), scales.reshape(-1, 1), rows)


_READERS: Final[dict[str, Callable[[torch.Tensor, int], GivenWeight]]] = {
    "Q8_0": _q8_0,
    "Q4_0": _q4_0,
    "Q5_0": _q5_0,
    "Q6_K": _q6_k,
    "Q3_K": _q3_k,
}
