"""Stored values of a weight that were learned before: each as a place among the values that its format has.

A code counts the values of a type from the least one on: of `int4` 0 stands for -8, of `palette4` for the first entry of
the table, of `nvfp4` for -6. So one stored form serves every format, in as many bits as the artifact takes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil, prod
from typing import Final

import numpy as np
import torch

__all__ = ["LearnedCodes", "pack", "width_of"]

_BYTE: Final = 8
_PIECE: Final = 1 << 20
"""Codes that are spread to bits at once; a multiple of eight, so that a piece ends where a byte does."""


@dataclass(frozen=True)
class LearnedCodes:
    """The codes of one weight.

    Attributes:
        packed: uint8 [ceil(elements * bits / 8)], of each code its lowest bit first.
        shape: The weight's.

    Raises:
        ValueError: They do not belong together.
    """

    packed: torch.Tensor = field(repr=False)
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        """Checks that the one can be the other's."""
        width_of(self.packed, self.shape)

    def read(self) -> torch.Tensor:
        """The codes, uint8 in the weight's shape."""
        number, width = prod(self.shape), width_of(self.packed, self.shape)
        if width == _BYTE:
            return self.packed.reshape(self.shape)
        found = np.empty(number, dtype=np.uint8)
        packed = self.packed.numpy()
        for start in range(0, number, _PIECE):
            count = min(_PIECE, number - start)
            first = start * width // _BYTE
            part = packed[first : first + ceil(count * width / _BYTE)]
            bits = np.unpackbits(part, count=count * width, bitorder="little")
            columns = bits.reshape(count, width)
            found[start : start + count] = np.packbits(columns, axis=1, bitorder="little")[:, 0]
        return torch.from_numpy(found).reshape(self.shape)


def pack(codes: torch.Tensor, width: int) -> torch.Tensor:
    """Codes of few bits without the bits that they do not use, as `LearnedCodes.packed`.

    Args:
        codes: Whole numbers below 2 ** width, of any shape and type.
        width: Bits of each, 1 to 8.
    """
    values = codes.to(torch.uint8).contiguous().reshape(-1).numpy()
    if width == _BYTE or len(values) < _BYTE:  # so few do not tell their width by their bytes
        return torch.from_numpy(values.copy())
    parts = []
    for start in range(0, len(values), _PIECE):
        piece = values[start : start + _PIECE, None]
        bits = np.unpackbits(piece, axis=1, count=width, bitorder="little")
        parts.append(np.packbits(bits.reshape(-1), bitorder="little"))
    return torch.from_numpy(np.concatenate(parts))


def width_of(packed: torch.Tensor, shape: tuple[int, ...]) -> int:
    """Bits of each code.

    Raises:
        ValueError: These are not the codes of a weight of this shape.
    """
    number = prod(shape)
    if packed.dtype == torch.uint8 and packed.dim() == 1 and number:
        width = min(_BYTE, len(packed) * _BYTE // number)
        expected = number if number < _BYTE else ceil(number * width / _BYTE)
        if width and len(packed) == expected:
            return width
    raise ValueError(f"codes {packed.dtype} {list(packed.shape)}, expected uint8 for {list(shape)}")
