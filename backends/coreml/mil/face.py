"""The inputs and outputs of a package, as its description gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from qdx.backends.coreml.mil.program import MilFunction, TensorType
from qdx.exporter.errors import InvalidBundle, quoted
from qdx.exporter.graph.ir.graph import TensorSpec

__all__ = ["face"]

# Numbers of `ArrayFeatureType.ArrayDataType`: 0x10000 for floats, 0x20000 for integers, and the bits.
_DTYPES: Final = {
    0x10000 | 16: "float16",
    0x10000 | 32: "float32",
    0x20000 | 8: "int8",
    0x20000 | 32: "int32",
}


def face(
    description: Any, function: MilFunction, where: str
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Returns a function's inputs and outputs.

    Names and types are those of the package's description; sizes are those of the function, which
    states them for outputs, too. An open size is a symbol: the value's name and the axis.

    Args:
        description: The protobuf message `ModelDescription`.
        function: The default function.
        where: The file, for messages.

    Raises:
        InvalidBundle: Description and function differ.
    """
    described = next((f for f in description.functions if f.name == function.name), description)
    given = {value.name: value.type for value in function.inputs}
    results = {value.name: value.type for value in function.inputs} | {
        value.name: value.type for op in function.operations for value in op.outputs
    }
    missing = [name for name in function.outputs if name not in results]
    if missing:
        raise InvalidBundle(f"{quoted(where)}: output {quoted(missing[0])} is never computed")
    return (
        _specs(described.input, given, f"{quoted(where)}: input"),
        _specs(
            described.output, {n: results[n] for n in function.outputs}, f"{quoted(where)}: output"
        ),
    )


def _specs(features: Any, types: Mapping[str, TensorType], where: str) -> tuple[TensorSpec, ...]:
    names = [feature.name for feature in features]
    if sorted(names) != sorted(types):
        raise InvalidBundle(
            f"{where}s are {', '.join(map(quoted, names))} in the description "
            f"and {', '.join(map(quoted, types))} in the program"
        )
    return tuple(_spec(feature, types[feature.name], where) for feature in features)


def _spec(feature: Any, declared: TensorType, where: str) -> TensorSpec:
    name = feature.name
    kind = feature.type.WhichOneof("Type")
    if kind != "multiArrayType":
        raise InvalidBundle(f"{where} {quoted(name)}: is a {kind}, expected an array")
    dtype = _DTYPES.get(feature.type.multiArrayType.dataType)
    if dtype != declared.kind.name or declared.shape is None:
        found = dtype or f"type {feature.type.multiArrayType.dataType}"
        raise InvalidBundle(f"{where} {quoted(name)}: is described as {found}, but is {declared}")
    shape = tuple(
        f"{name}_{axis}" if size is None else size for axis, size in enumerate(declared.shape)
    )
    return TensorSpec(name, dtype, shape)
