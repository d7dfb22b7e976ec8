"""Operators on element types for which ONNX Runtime has no kernel, carried out on a type for which it has one.

The standard gives each operator more types than the runtime's processor has kernels for: a choice between booleans is
one. PyTorch takes more types than the standard: it sorts booleans. What carries a type holds all of its values, double
precision aside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import onnx
import onnx_ir as ir

from qdx.backends.onnx.origin import join_origins

__all__ = ["carry_types"]

_BOOL, _INT8, _UINT8 = ir.DataType.BOOL, ir.DataType.INT8, ir.DataType.UINT8
_INT16, _INT32, _INT64 = ir.DataType.INT16, ir.DataType.INT32, ir.DataType.INT64
_FLOAT, _DOUBLE = ir.DataType.FLOAT, ir.DataType.DOUBLE

_Carriers = Mapping[ir.DataType, ir.DataType]

_NARROWED: Final[_Carriers] = {_DOUBLE: _FLOAT}
"""All floats are computed in float32."""
_SMALL: Final[_Carriers] = {_INT8: _INT32, _UINT8: _INT32, _INT16: _INT32}
_IN_FLOATS: Final[_Carriers] = {
    **dict.fromkeys((_BOOL, _INT8, _UINT8, _INT16, _INT32), _FLOAT),
    _INT64: _DOUBLE,
}
_CARRIERS: Final[Mapping[str, _Carriers]] = {
    **dict.fromkeys(
        (
            "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "AveragePool", "Conv", "ConvTranspose", "Cosh", "Elu",
            "Erf", "Gelu", "GlobalAveragePool", "GlobalMaxPool", "HardSigmoid", "Hardmax", "InstanceNormalization",
            "LeakyRelu", "Mean", "Selu", "Sinh", "Softplus", "Softsign", "Tan",
        ),
        _NARROWED,
    ),
    "ArgMax": {_INT16: _INT32},
    "ArgMin": {_INT16: _INT32},
    "Clip": {_INT16: _INT32},
    "Col2Im": {_DOUBLE: _FLOAT, **_IN_FLOATS, _INT64: _FLOAT},
    "DepthToSpace": _IN_FLOATS,
    "Einsum": _SMALL,
    "EyeLike": {_BOOL: _INT32, **_SMALL},
    "Gemm": {_INT32: _DOUBLE, _INT64: _DOUBLE},
    "GridSample": _IN_FLOATS,
    "Max": {_INT16: _INT32},
    "Min": {_INT16: _INT32},
    "NonZero": {_INT8: _INT32, _INT16: _INT32, _DOUBLE: _FLOAT},
    "OneHot": {_BOOL: _INT32, **_SMALL, _DOUBLE: _FLOAT},
    "PRelu": {_INT32: _FLOAT, _INT64: _FLOAT, _DOUBLE: _FLOAT},
    "Pad": {_BOOL: _INT32, _INT16: _INT32},
    "Pow": _SMALL,
    "Relu": {_INT16: _INT32, _INT64: _DOUBLE},
    "Resize": {_BOOL: _FLOAT, _INT16: _INT32, _INT64: _FLOAT, _DOUBLE: _FLOAT},
    "SpaceToDepth": _IN_FLOATS,
    "Trilu": _SMALL,
    "Unique": {_BOOL: _INT8, _UINT8: _INT64, _INT16: _INT64, _INT32: _INT64},
    "Where": {_BOOL: _INT32, _INT16: _INT32},
}  # fmt: skip
"""By operator, what takes the place of the types that it has no kernel for."""
_WIDENED: Final = frozenset({_BOOL, _INT8, _UINT8, _INT16, _INT32})
_WIDER: Final = (_INT32, _INT64, _FLOAT)
"""What takes the place of small types that the standard does not give to an operator, in this order."""
_VARIABLE: Final = frozenset({"T", "T1", "T2", "T3"})
"""The standard's names of types that are the model's to choose, unlike that of a condition."""


def carry_types(model: ir.Model) -> None:
    """Casts what an operator without a kernel reads, and casts back what it makes, in place.

    Before: `y = Where(condition, a, b)` of booleans.
    After: `y = Cast<bool>(Where(condition, Cast<int32>(a), Cast<int32>(b)))`.
    """
    opset = model.graph.opset_imports[""]
    for node in list(model.graph.all_nodes()):
        if not node.domain and onnx.defs.has(node.op_type, opset):
            carriers = _CARRIERS.get(node.op_type, {})
            _carry(node, onnx.defs.get_schema(node.op_type, opset), carriers)


def _carry(node: ir.Node, schema: onnx.defs.OpSchema, carriers: _Carriers) -> None:
    inputs = [_parameter(schema.inputs, index) for index in range(len(node.inputs))]
    outputs = [_parameter(schema.outputs, index) for index in range(len(node.outputs))]
    for parameter in sorted(_VARIABLE.intersection((*inputs, *outputs))):
        values = [
            value
            for given, name in ((node.inputs, inputs), (node.outputs, outputs))
            for value, own in zip(given, name, strict=True)
            if own == parameter and value is not None
        ]
        stored = next((value.dtype for value in values if value.dtype is not None), None)
        carrier = None if stored is None else _carrier(schema, parameter, stored, carriers)
        if stored is None or carrier is None:
            continue
        for index, own in enumerate(inputs):
            value = node.inputs[index]
            if own == parameter and value is not None:
                node.replace_input_with(index, _cast_before(node, value, carrier))
        for output, own in zip(node.outputs, outputs, strict=True):
            if own == parameter:
                _cast_behind(node, output, stored, carrier)


def _carrier(
    schema: onnx.defs.OpSchema, parameter: str, stored: ir.DataType, carriers: _Carriers
) -> ir.DataType | None:
    """What carries a type; None for a type that the operator has."""
    if stored in carriers:
        return carriers[stored]
    names = next(
        c.allowed_type_strs for c in schema.type_constraints if c.type_param_str == parameter
    )
    allowed = {kind for kind in _WIDER if f"tensor({kind.name.lower()})" in names}
    if stored not in _WIDENED or f"tensor({stored.name.lower()})" in names:
        return None
    return next((kind for kind in _WIDER if kind in allowed and kind not in carriers), None)


def _parameter(formal: Sequence[onnx.defs.OpSchema.FormalParameter], index: int) -> str:
    """The type that an input or output is of, as the standard names it; the last may be repeated."""
    return str(formal[min(index, len(formal) - 1)].type_str)


def _cast_before(node: ir.Node, value: ir.Value, carrier: ir.DataType) -> ir.Value:
    cast = _cast(node, value, carrier)
    _graph_of(node).insert_before(node, cast)
    return cast.outputs[0]


def _cast_behind(
    node: ir.Node, output: ir.Value, stored: ir.DataType, carrier: ir.DataType
) -> None:
    cast = _cast(node, output, stored)
    output.replace_all_uses_with(cast.outputs[0], replace_graph_outputs=True)
    cast.replace_input_with(0, output)
    output.dtype = carrier
    _graph_of(node).insert_after(node, cast)


def _cast(node: ir.Node, value: ir.Value, dtype: ir.DataType) -> ir.Node:
    cast = ir.node("Cast", [value], {"to": dtype})
    cast.outputs[0].shape, cast.outputs[0].dtype = value.shape, dtype
    cast.metadata_props.update(node.metadata_props)
    join_origins(cast, node)
    return cast


def _graph_of(node: ir.Node) -> ir.Graph:
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    return graph
