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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from qdx.backends.coreml.mil.bits import unpack
from qdx.backends.coreml.mil.dtypes import BY_BLOB_CODE, MilType
from qdx.backends.coreml.mil.where import Where
from qdx.exporter.errors import InvalidBundle, StorageError, quoted
from qdx.exporter.files import open_regular

__all__ = ["Blob", "WeightFile", "WeightFileWriter"]

_ALIGNMENT_BYTES: Final = 64
_SENTINEL: Final = 0xDEADBEEF
_VERSION: Final = 2
_HEADER: Final = struct.Struct("<II")
_ENTRY: Final = struct.Struct("<IIQQQ")
# Linux reads at most 2 GiB at once.
_READ_LIMIT_BYTES: Final = 1 << 30
_COPIED_BYTES: Final = 1 << 24


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

    def entry(self, entry_bytes: int) -> tuple[bytes, int, int]:
        """A description as it is, bytes of the data, and where they start; of a file that this project wrote."""
        raw = self.read(entry_bytes, _ALIGNMENT_BYTES).tobytes()
        sentinel, _, size, offset, _ = _ENTRY.unpack_from(raw)
        assert sentinel == _SENTINEL
        return raw, size, offset

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


class WeightFileWriter:
    """A weight file made of entries of another, each written once.

    Args:
        path: The file to write.

    Raises:
        StorageError: The disk refused, here and in all that follows.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._places: dict[int, int] = {}

    def __enter__(self) -> Self:
        with self._storing():
            self._file = self._path.open("xb")
            self._file.write(bytes(_ALIGNMENT_BYTES))
        return self

    def __exit__(self, *exception: object) -> None:
        with self._storing(), self._file:
            self._file.seek(0)
            self._file.write(_HEADER.pack(len(self._places), _VERSION))

    def copy(self, source: WeightFile, entry_bytes: int) -> int:
        """Copies an entry; returns where its description starts now."""
        if entry_bytes not in self._places:
            raw, size, offset = source.entry(entry_bytes)
            with self._storing():
                start = self._file.tell()
                data = start + _ALIGNMENT_BYTES
                self._file.write(_ENTRY.pack(*_moved(raw, data)) + raw[_ENTRY.size :])
                for done in range(0, size, _COPIED_BYTES):
                    part = min(_COPIED_BYTES, size - done)
                    self._file.write(source.read(offset + done, part).tobytes())
                self._file.write(bytes(-size % _ALIGNMENT_BYTES))
            self._places[entry_bytes] = start
        return self._places[entry_bytes]

    @contextmanager
    def _storing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(f"{quoted(self._path)}: {error.strerror}") from error


def _moved(raw: bytes, offset_bytes: int) -> tuple[int, ...]:
    """A description's numbers, with another place of the data."""
    sentinel, code, size, _, unused_bits = _ENTRY.unpack_from(raw)
    return sentinel, code, size, offset_bytes, unused_bits
