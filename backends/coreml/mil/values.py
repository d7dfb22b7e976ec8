"""Types and constants of a program, from their protobuf messages."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qdx.backends.coreml.mil.bits import unpack
from qdx.backends.coreml.mil.blob import WeightFile
from qdx.backends.coreml.mil.dtypes import BY_CODE, STRING, MilType
from qdx.backends.coreml.mil.program import MilConstant, TensorType
from qdx.backends.coreml.mil.where import Where
from qdx.exporter.errors import InvalidBundle, quoted
from qdx.exporter.limits import MIL_ELEMENTS_LIMIT, TENSOR_RANK_LIMIT

__all__ = ["OpenFile", "constant_from_message", "type_from_message"]

# Opens the weight file that a program names.
OpenFile = Callable[[str], WeightFile]

# The repeated field in which MIL keeps an immediate value; all other types are bytes.
_FIELDS: Final = {
    "bool": "bools",
    "float32": "floats",
    "int16": "ints",
    "int32": "ints",
    "int64": "longInts",
    "string": "strings",
    "uint16": "ints",
}


def type_from_message(message: Any, where: Where) -> TensorType:
    """Reads a `ValueType`.

    Args:
        message: The protobuf message.
        where: What has this type, for messages.

    Raises:
        InvalidBundle: It is no tensor, or one that no program can hold.
    """
    kind = message.WhichOneof("type")
    if kind != "tensorType":
        raise InvalidBundle(f"{where}: has a {kind or 'missing type'}, expected a tensor")
    tensor = message.tensorType
    if tensor.dataType not in BY_CODE:
        raise InvalidBundle(f"{where}: has elements of type {tensor.dataType}, which is unknown")
    element = BY_CODE[tensor.dataType]
    if any(d.HasField("unknown") and d.unknown.variadic for d in tensor.dimensions):
        return TensorType(element, None)
    if len(tensor.dimensions) > TENSOR_RANK_LIMIT:
        rank = len(tensor.dimensions)
        raise InvalidBundle(f"{where}: has rank {rank}, expected at most {TENSOR_RANK_LIMIT}")
    shape = tuple(
        int(d.constant.size) if d.HasField("constant") else None for d in tensor.dimensions
    )
    if math.prod(size or 1 for size in shape) > MIL_ELEMENTS_LIMIT:
        raise InvalidBundle(f"{where}: has shape {list(shape)}, expected fewer elements")
    return TensorType(element, shape)


def constant_from_message(message: Any, where: Where, open_file: OpenFile) -> MilConstant:
    """Reads a `Value`: what is in the program at once, what lies in a weight file when asked for.

    Args:
        message: The protobuf message.
        where: What has this value, for messages.
        open_file: Opens the weight file of a name.

    Raises:
        InvalidBundle: Value and type differ, or the weight file does not hold it.
    """
    declared = type_from_message(message.type, where)
    count = declared.count
    if count is None:
        raise InvalidBundle(f"{where}: is a constant of type {declared}, expected known sizes")
    if message.WhichOneof("value") == "blobFileValue":
        if declared.kind.blob_code is None:
            raise InvalidBundle(f"{where}: {declared} in a weight file, which cannot hold it")
        blob = message.blobFileValue
        file = open_file(blob.fileName)
        return MilConstant(declared, file.find(blob.offset, declared.kind, count, where))
    if not message.HasField("immediateValue") or not message.immediateValue.HasField("tensor"):
        raise InvalidBundle(f"{where}: has no value, expected {declared}")
    tensor = message.immediateValue.tensor
    field = _FIELDS.get(declared.kind.name, "bytes")
    found = tensor.WhichOneof("value")
    if found is None and count == 0:
        return MilConstant(declared, np.empty(0, declared.kind.storage))
    if found != field:
        raise InvalidBundle(f"{where}: is stored as {quoted(found)}, expected {field}")
    values = getattr(tensor, field).values
    if declared.kind is STRING:
        if count != 1 or len(values) != 1:
            raise InvalidBundle(f"{where}: is {len(values)} texts, expected one")
        return MilConstant(declared, str(values[0]))
    if field == "bytes":
        return MilConstant(declared, _from_bytes(values, declared.kind, count, where))
    if len(values) != count:
        raise InvalidBundle(f"{where}: has {len(values)} elements, expected {count}")
    return MilConstant(declared, _from_numbers(values, declared.kind, where))


def _from_bytes(data: bytes, kind: MilType, count: int, where: Where) -> NDArray[Any]:
    if len(data) != kind.size_bytes(count):
        raise InvalidBundle(
            f"{where}: has {len(data)} bytes, expected {kind.size_bytes(count)} for {count} of {kind.name}"
        )
    return unpack(np.frombuffer(data, np.uint8).copy(), kind, count)


def _from_numbers(values: Any, kind: MilType, where: Where) -> NDArray[Any]:
    numbers = np.array(values, np.int64 if kind.storage.kind in "iu" else kind.storage)
    if kind.storage.kind in "iu" and numbers.size:
        limits = np.iinfo(kind.storage)
        if numbers.min() < limits.min or numbers.max() > limits.max:
            raise InvalidBundle(f"{where}: has values that are not {kind.name}")
    return numbers.astype(kind.storage)
