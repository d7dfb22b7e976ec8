"""Elements smaller than a byte, as they lie in a row of bytes."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qdx.backends.coreml.mil.dtypes import MilType

__all__ = ["unpack", "unpack_bits"]

# Groups of bytes unpacked at a time, so that the words between take little memory.
_GROUPS: Final = 1 << 20


def unpack(data: NDArray[np.uint8], kind: MilType, count: int) -> NDArray[Any]:
    """Elements of any type from their bytes.

    Args:
        data: All bytes of the elements, aligned; may become the result's memory.
        kind: The elements.
        count: How many.

    Returns:
        `kind.storage`, shape [count]; `int4` in int8.
    """
    if not kind.packed:
        return data.view(kind.storage)
    codes = unpack_bits(data, kind.bits, count)
    if kind.name == "int4":
        # Two's complement of four bits: 8 to 15 stand for -8 to -1.
        return (codes ^ np.uint8(8)).view(np.int8) - np.int8(8)
    return codes


def unpack_bits(data: NDArray[np.uint8], bits: int, count: int) -> NDArray[np.uint8]:
    """Unpacks unsigned elements that follow each other without gaps, lowest bits first.

    Element 0 takes the lowest bits of byte 0; an element that crosses a byte's end continues in the
    lowest bits of the next.

    Args:
        data: Bytes, shape [ceil(count * bits / 8)]; what lies behind the last element is ignored.
        bits: Of an element: 1, 2, 3, 4, 6 or 8.
        count: Elements.

    Returns:
        uint8, shape [count].

    Raises:
        ValueError: There are too few or too many bytes.
    """
    if data.size != (count * bits + 7) // 8:
        raise ValueError(f"{data.size} bytes for {count} elements of {bits} bits")
    if bits == 8:
        return data.copy()
    # The fewest bytes that hold whole elements.
    width = 3 if bits % 3 == 0 else 1
    per_group = 8 * width // bits
    groups = -(-data.size // width)
    out = np.empty((groups, per_group), np.uint8)
    for start in range(0, groups, _GROUPS):
        part = _group(data[start * width : (start + _GROUPS) * width], width)
        words = np.zeros(len(part), np.uint32)
        for index in range(width):
            words |= part[:, index].astype(np.uint32) << np.uint32(8 * index)
        for index in range(per_group):
            shifted: NDArray[Any] = words >> np.uint32(bits * index)
            out[start : start + len(part), index] = shifted & np.uint32((1 << bits) - 1)
    return out.reshape(-1)[:count]


def _group(data: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    missing = -len(data) % width
    padded = np.concatenate([data, np.zeros(missing, np.uint8)]) if missing else data
    return padded.reshape(-1, width)
