"""GGUF files, version 2 and 3: the names, shapes and bytes of their tensors, from files of strangers.

The header is read with a limit for each count and text, tensors must lie in the file and not overlap, and metadata values are skipped, not kept, but for
the alignment. Nothing is taken for a path or a program.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, NoReturn

from qdx.exporter.errors import InvalidInput, quoted
from qdx.exporter.files import open_regular
from qdx.exporter.limits import PARAMETERS_LIMIT, TENSOR_NAME_LIMIT

__all__ = ["GgufFile", "GgufTensor"]

_MAGIC: Final = b"GGUF"
_VALUES_LIMIT: Final = 65_536
_TEXT_LIMIT: Final = 1 << 20
_ITEMS_LIMIT: Final = 1 << 20
_RANK_LIMIT: Final = 5
_TEXT: Final = 8
_ARRAY: Final = 9
_SIZES: Final = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a metadata value, by its kind."""
BLOCKS: Final = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 30: ("BF16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210),
}  # fmt: skip
"""Types by their number: name, elements of a block, bytes of it."""


@dataclass(frozen=True)
class GgufTensor:
    """Where one tensor lies.

    Attributes:
        kind: Its type, such as `Q8_0`.
        shape: As torch has it: rows first.
        offset_bytes: From the start of the file.
        size_bytes: Of all blocks.
    """

    kind: str
    shape: tuple[int, ...]
    offset_bytes: int
    size_bytes: int


class GgufFile:
    """One GGUF file with a checked header.

    Args:
        path: The file, not a link.

    Attributes:
        tensors: By name.

    Raises:
        InvalidInput: The file is malformed.
        StorageError: Reading failed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with open_regular(path) as file:
            self._size = os.fstat(file.fileno()).st_size
            self.tensors: Mapping[str, GgufTensor] = self._read_header(file)

    def read(self, name: str) -> bytes:
        """The bytes of a tensor's blocks."""
        tensor = self.tensors[name]
        with open_regular(self.path) as file:
            file.seek(tensor.offset_bytes)
            data = file.read(tensor.size_bytes)
        if len(data) != tensor.size_bytes:
            self._fail(f"tensor {quoted(name)} ends early")
        return data

    def _read_header(self, file: BinaryIO) -> dict[str, GgufTensor]:
        if file.read(4) != _MAGIC:
            self._fail("does not begin with `GGUF`")
        version, tensors, values = self._unpack(file, "<IQQ")
        if version not in {2, 3}:
            self._fail(f"version {version}, expected 2 or 3")
        if tensors > PARAMETERS_LIMIT or values > _VALUES_LIMIT:
            self._fail(f"{tensors} tensors and {values} values, expected at most {PARAMETERS_LIMIT} and {_VALUES_LIMIT}")  # fmt: skip
        alignment = 32
        for _ in range(values):
            key = self._text(file)
            found = self._value(file)
            if key == "general.alignment":
                if not isinstance(found, int) or not 1 <= found <= 1 << 16:
                    self._fail("an alignment that is no number of bytes")
                alignment = found
        listed = [self._info(file) for _ in range(tensors)]
        start = -(-file.tell() // alignment) * alignment
        return self._placed(listed, start)

    def _placed(
        self, listed: list[tuple[str, int, tuple[int, ...], int]], start: int
    ) -> dict[str, GgufTensor]:
        found: dict[str, GgufTensor] = {}
        for name, kind, shape, offset in listed:
            if kind not in BLOCKS:
                self._fail(f"tensor {quoted(name)} is of type {kind}, which is not read here")
            word, elements, size = BLOCKS[kind]
            count = 1
            for length in shape:
                count *= length
            if not count or (shape and shape[-1] % elements):
                self._fail(f"tensor {quoted(name)} of {list(shape)} is not divided into blocks of {elements}")  # fmt: skip
            if name in found:
                self._fail(f"tensor {quoted(name)} appears twice")
            found[name] = GgufTensor(word, shape, start + offset, count // elements * size)
        end = start
        for name, one in sorted(found.items(), key=lambda pair: pair[1].offset_bytes):
            if one.offset_bytes < end or one.offset_bytes + one.size_bytes > self._size:
                self._fail(f"tensor {quoted(name)} overlaps another or ends behind the file")
            end = one.offset_bytes + one.size_bytes
        return found

    def _info(self, file: BinaryIO) -> tuple[str, int, tuple[int, ...], int]:
        name = self._text(file, TENSOR_NAME_LIMIT)
        (rank,) = self._unpack(file, "<I")
        if rank > _RANK_LIMIT:
            self._fail(f"tensor {quoted(name)} has {rank} dimensions")
        sizes = self._unpack(file, f"<{rank}Q")
        kind, offset = self._unpack(file, "<IQ")
        if any(size > 1 << 40 for size in sizes) or offset > 1 << 60:
            self._fail(f"tensor {quoted(name)} is too large")
        return name, kind, tuple(reversed(sizes)), offset

    def _value(self, file: BinaryIO, kind: int | None = None) -> Any:
        """A metadata value; of texts and arrays nothing is kept."""
        if kind is None:
            (kind,) = self._unpack(file, "<I")
        if kind == _TEXT:
            self._text(file)
            return None
        if kind == _ARRAY:
            inner, count = self._unpack(file, "<IQ")
            if inner == _ARRAY or count > _ITEMS_LIMIT:
                self._fail("arrays in arrays, or of too many items")
            for _ in range(count):
                self._value(file, inner)
            return None
        if kind not in _SIZES:
            self._fail(f"a value of kind {kind}")
        return int.from_bytes(self._bytes(file, _SIZES[kind]), "little")

    def _text(self, file: BinaryIO, limit: int = _TEXT_LIMIT) -> str:
        (length,) = self._unpack(file, "<Q")
        if length > limit:
            self._fail(f"text of {length} bytes, expected at most {limit}")
        try:
            return self._bytes(file, length).decode("utf-8")
        except UnicodeDecodeError:
            self._fail("text that is not UTF-8")

    def _unpack(self, file: BinaryIO, form: str) -> tuple[int, ...]:
        return struct.unpack(form, self._bytes(file, struct.calcsize(form)))

    def _bytes(self, file: BinaryIO, count: int) -> bytes:
        data = file.read(count)
        if len(data) != count:
            self._fail("ends within its header")
        return data

    def _fail(self, words: str) -> NoReturn:
        raise InvalidInput(f"{quoted(self.path)}: {words}")
