"""The element types of MIL: how they are named, numbered, stored and computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch

__all__ = ["BY_BLOB_CODE", "BY_CODE", "BY_NAME", "STRING", "MilType"]


@dataclass(frozen=True)
class MilType:
    """One element type.

    Attributes:
        name: As MIL's text spells it, such as `uint4`; `float16` for `fp16`.
        code: Its number in the program.
        blob_code: Its number in weight files; None where they cannot hold it.
        bits: Of one element, as stored.
        storage: numpy's type of an unpacked element.
        tensor: torch's type of values; wider than `storage` where torch cannot index or compute
            with that.
    """

    name: str
    code: int
    blob_code: int | None
    bits: int
    storage: np.dtype[Any]
    tensor: torch.dtype

    @property
    def packed(self) -> bool:
        """Whether several elements share a byte."""
        return self.bits < 8

    def size_bytes(self, count: int) -> int:
        """Stored bytes of that many elements, which end with a whole byte."""
        return (count * self.bits + 7) // 8


def _type(
    name: str, code: int, blob_code: int | None, bits: int, storage: str, tensor: torch.dtype
) -> MilType:
    return MilType(name, code, blob_code, bits, np.dtype(storage), tensor)


# Numbers of the enumerations `DataType` of MIL.proto and `BlobDataType` of weight files. Files are little-endian.
_TYPES: Final = (
    _type("bool", 1, None, 8, "?", torch.bool),
    _type("float16", 10, 1, 16, "<f2", torch.float16),
    _type("float32", 11, 2, 32, "<f4", torch.float32),
    _type("int8", 21, 4, 8, "i1", torch.int8),
    _type("int16", 22, 6, 16, "<i2", torch.int16),
    _type("int32", 23, 14, 32, "<i4", torch.int32),
    _type("int64", 24, None, 64, "<i8", torch.int64),
    _type("int4", 25, 8, 4, "i1", torch.int8),
    _type("uint8", 31, 3, 8, "u1", torch.uint8),
    _type("uint16", 32, 7, 16, "<u2", torch.int32),
    _type("uint32", 33, 15, 32, "<u4", torch.int64),
    _type("uint4", 35, 11, 4, "u1", torch.uint8),
    _type("uint2", 36, 10, 2, "u1", torch.uint8),
    _type("uint1", 37, 9, 1, "u1", torch.uint8),
    _type("uint6", 38, 13, 6, "u1", torch.uint8),
    _type("uint3", 39, 12, 3, "u1", torch.uint8),
)
STRING: Final = _type("string", 2, None, 8, "O", torch.uint8)
BY_CODE: Final = {kind.code: kind for kind in (*_TYPES, STRING)}
BY_NAME: Final = {kind.name: kind for kind in (*_TYPES, STRING)}
BY_BLOB_CODE: Final = {kind.blob_code: kind for kind in _TYPES if kind.blob_code is not None}
