"""The weight file of a Core ML package, read by its own format and not by the library that wrote it.

The file starts with a header of 64 bytes: how many entries there are, and the format's version. Each
entry is 64 bytes that describe it, then its data; both start at multiples of 64. All is little-endian:

    0   uint32  0xDEADBEEF
    4   uint32  element type
    8   uint64  bytes of data
    16  uint64  where the data starts in the file
    24  uint64  unused bits of the last byte, for elements smaller than a byte

A program refers to an entry by where its description starts. The layout is that of StorageFormat.hpp
in the sources of coremltools.
"""

from __future__ import annotations

import os
import struct
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qdx.backends.coreml.mil.bits import unpack
from qdx.backends.coreml.mil.dtypes import BY_BLOB_CODE, MilType
from qdx.backends.coreml.mil.where import Where
from qdx.exporter.errors import InvalidBundle, StorageError, quoted
from qdx.exporter.files import open_regular

__all__ = ["Blob", "WeightFile"]

_ALIGNMENT_BYTES: Final = 64
_SENTINEL: Final = 0xDEADBEEF
_VERSION: Final = 2
_HEADER: Final = struct.Struct("<II")
_ENTRY: Final = struct.Struct("<IIQQQ")
# Linux reads at most 2 GiB at once.
_READ_LIMIT_BYTES: Final = 1 << 30


@dataclass(frozen=True)
class Blob:
    """Where one constant lies in a weight file, checked against the file.

    Attributes:
        kind: Its elements.
        count: How many.
        entry_bytes: Where its description starts: the number that programs name.
        offset_bytes: Where its data starts.
        size_bytes: Of its data.
    """

    kind: MilType
    count: int
    entry_bytes: int
    offset_bytes: int
    size_bytes: int
    file: WeightFile = field(repr=False, compare=False)

    def read(self) -> NDArray[Any]:
        """Reads it into new memory, one element each, shape [count].

        Raises:
            InvalidBundle: The file became shorter.
            StorageError: Reading fails.
        """
        return unpack(self.file.read(self.offset_bytes, self.size_bytes), self.kind, self.count)


class WeightFile:
    """One opened weight file.

    The file stays open: data is read from the descriptor whose descriptions were checked.

    Args:
        path: The file, not a link.

    Raises:
        InvalidBundle: It is missing or not of this format.
        StorageError: Reading fails.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        with open_regular(path, error=InvalidBundle) as file:
            self._descriptor = os.dup(file.fileno())
        self._closer = weakref.finalize(self, os.close, self._descriptor)
        self.size_bytes = os.fstat(self._descriptor).st_size
        if self.size_bytes < _ALIGNMENT_BYTES:
            raise self._invalid(f"{self.size_bytes} bytes, expected a header of {_ALIGNMENT_BYTES}")
        _, version = _HEADER.unpack(self.read(0, _HEADER.size).tobytes())
        if version != _VERSION:
            raise self._invalid(f"format version {version}, expected {_VERSION}")

    def find(self, entry_bytes: int, kind: MilType, count: int, where: Where) -> Blob:
        """Finds an entry and compares it with what the program says of it.

        Args:
            entry_bytes: Where its description starts.
            kind: The elements that the program declares.
            count: How many elements the program declares.
            where: The constant, for messages.

        Raises:
            InvalidBundle: There is no such entry, it differs from the declaration, or its data
                leaves the file.
        """
        last = self.size_bytes - _ALIGNMENT_BYTES
        if entry_bytes % _ALIGNMENT_BYTES or not _ALIGNMENT_BYTES <= entry_bytes <= last:
            raise self._wrong(
                where, entry_bytes, f"no entry starts there, of {self.size_bytes} bytes"
            )
        raw = self.read(entry_bytes, _ENTRY.size).tobytes()
        sentinel, code, size, offset, unused_bits = _ENTRY.unpack(raw)
        if sentinel != _SENTINEL:
            raise self._wrong(where, entry_bytes, f"no entry starts there, found 0x{sentinel:08x}")
        if code != kind.blob_code:
            found = BY_BLOB_CODE[code].name if code in BY_BLOB_CODE else f"type {code}"
            raise self._wrong(
                where, entry_bytes, f"holds {found}, the program declares {kind.name}"
            )
        expected = kind.size_bytes(count)
        if size != expected or unused_bits != 8 * expected - kind.bits * count:
            reason = f"{size} bytes, expected {expected} for {count} elements"
            raise self._wrong(where, entry_bytes, reason)
        if offset % _ALIGNMENT_BYTES or not _ALIGNMENT_BYTES <= offset <= self.size_bytes - size:
            reason = f"{size} bytes of data from {offset}, the file has {self.size_bytes}"
            raise self._wrong(where, entry_bytes, reason)
        return Blob(kind, count, entry_bytes, offset, size, self)

    def read(self, offset_bytes: int, size_bytes: int) -> NDArray[np.uint8]:
        """Reads bytes into new memory; raises like `Blob.read`."""
        data = np.empty(size_bytes, np.uint8)
        done = 0
        while done < size_bytes:
            part = data[done : done + _READ_LIMIT_BYTES].data
            try:
                count = os.preadv(self._descriptor, [part], offset_bytes + done)
            except OSError as bad:
                message = f"{quoted(self.path)}: cannot be read, {bad.strerror}"
                raise StorageError(message) from bad
            if count == 0:
                raise self._invalid("the file became shorter while it was read")
            done += count
        return data

    def _invalid(self, reason: str) -> InvalidBundle:
        return InvalidBundle(f"{quoted(self.path)}: {reason}")

    def _wrong(self, where: Where, entry_bytes: int, reason: str) -> InvalidBundle:
        return InvalidBundle(f"{where}: at {entry_bytes} of {quoted(self.path.name)}: {reason}")
