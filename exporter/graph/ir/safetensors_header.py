"""The header of a safetensors file: what it may say, and nothing else.

The library accepts duplicate names (the last wins) and any characters in a name, so the header
is checked here. https://huggingface.co/docs/safetensors describes the format.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from qdx.exporter.dtypes import bits
from qdx.exporter.errors import InvalidModel, quoted
from qdx.exporter.limits import TENSOR_NAME_LIMIT, TENSOR_RANK_LIMIT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["StoredTensor", "tensors_from_header"]

# The format's names of types, with torch's. Sub-byte types are not supported.
_DTYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "BOOL": "bool",
        "U8": "uint8",
        "I8": "int8",
        "F8_E4M3": "float8_e4m3fn",
        "F8_E5M2": "float8_e5m2",
        "U16": "uint16",
        "I16": "int16",
        "F16": "float16",
        "BF16": "bfloat16",
        "U32": "uint32",
        "I32": "int32",
        "F32": "float32",
        "U64": "uint64",
        "I64": "int64",
        "F64": "float64",
    }
)
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:+-]*", re.ASCII)


@dataclass(frozen=True)
class StoredTensor:
    """Where one tensor lies in its file.

    Attributes:
        name: Unique in the file.
        dtype: Name in torch, for example `float16`.
        shape: Dimensions; `()` for a scalar.
        offset_bytes: From the start of the file.
        size_bytes: Product of the shape and the element size.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset_bytes: int
    size_bytes: int


def tensors_from_header(
    header: dict[str, Any], start_bytes: int, size_bytes: int, path: Path
) -> dict[str, StoredTensor]:
    """Checks every entry and that the entries tile the data without hole or overlap.

    Args:
        header: The parsed header; `__metadata__` is removed from it.
        start_bytes: Where the data begins in the file.
        size_bytes: Of the whole file.
        path: For messages.

    Raises:
        InvalidModel: Naming the file and the tensor.
    """
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise InvalidModel(f"{quoted(path)}: `__metadata__` is not a map from text to text")
    tensors = {name: _entry(name, entry, start_bytes, path) for name, entry in header.items()}
    position = start_bytes
    for tensor in sorted(tensors.values(), key=lambda t: (t.offset_bytes, t.size_bytes)):
        if tensor.offset_bytes != position:
            where = f"{quoted(path)}: tensor {quoted(tensor.name)}"
            found, expected = tensor.offset_bytes - start_bytes, position - start_bytes
            raise InvalidModel(f"{where}: starts at data byte {found}, expected {expected}")
        position += tensor.size_bytes
    if position != size_bytes:
        raise InvalidModel(f"{quoted(path)}: {size_bytes} bytes, expected {position}")
    return tensors


def _entry(name: str, entry: object, start_bytes: int, path: Path) -> StoredTensor:
    where = f"{quoted(path)}: tensor {quoted(name)}"
    if len(name) > TENSOR_NAME_LIMIT or _NAME.fullmatch(name) is None or ".." in name:
        raise InvalidModel(
            f"{where}: not an allowed name, expected one like `down_blocks.0.weight`"
        )
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise InvalidModel(f"{where}: expected exactly `dtype`, `shape` and `data_offsets`")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        known = ", ".join(_DTYPES)
        raise InvalidModel(f"{where}: dtype {quoted(dtype)}, expected one of {known}")
    if not _is_sizes(shape) or len(shape) > TENSOR_RANK_LIMIT:
        raise InvalidModel(f"{where}: shape {quoted(shape)}, expected up to 16 sizes")
    if not _is_sizes(offsets) or len(offsets) != 2:
        raise InvalidModel(f"{where}: data_offsets {quoted(offsets)}, expected two offsets")
    torch_name = _DTYPES[dtype]
    size_bytes, (begin, end) = math.prod(shape) * bits(torch_name) // 8, offsets
    if end - begin != size_bytes:
        raise InvalidModel(f"{where}: {end - begin} bytes, expected {size_bytes} for its shape")
    return StoredTensor(name, torch_name, tuple(shape), start_bytes + begin, size_bytes)


def _is_sizes(value: object) -> bool:
    # `type` and not isinstance: True is an int for isinstance.
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)
