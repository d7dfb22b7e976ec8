"""Element types: a strongly typed network converts nothing by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

import onnx_ir as ir

from qdx.backends.tensorrt.lint.findings import DeviceFacts, Fault, name_of
from qdx.backends.tensorrt.lint.subject import Subject, is_standard

__all__ = ["cast_float8", "double", "integer_bias", "mixed_types", "unknown_type"]

_FLOAT8: Final = frozenset(
    [
        ir.DataType.FLOAT8E4M3FN,
        ir.DataType.FLOAT8E4M3FNUZ,
        ir.DataType.FLOAT8E5M2,
        ir.DataType.FLOAT8E5M2FNUZ,
    ]
)
_ALL: Final = slice(None)
_SAME: Final[Mapping[str, slice]] = MappingProxyType(
    {
        **dict.fromkeys(
            [
                "Add",
                "BatchNormalization",
                "Clip",
                "Concat",
                "Conv",
                "ConvTranspose",
                "Div",
                "Einsum",
                "Equal",
                "Gemm",
                "Greater",
                "GreaterOrEqual",
                "GroupNormalization",
                "InstanceNormalization",
                "LayerNormalization",
                "Less",
                "LessOrEqual",
                "MatMul",
                "Max",
                "Mean",
                "Min",
                "Mod",
                "Mul",
                "PRelu",
                "Pow",
                "RMSNormalization",
                "Sub",
                "Sum",
            ],
            _ALL,
        ),
        "Attention": slice(0, 3),
        "Where": slice(1, 3),
    }
)
"""Inputs that must have one type, by operator."""
_WEIGHTED: Final = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def mixed_types(subject: Subject, facts: DeviceFacts) -> Iterator[Fault]:
    """Operands have one type; a scalar in float32 among float16 is the usual breach."""
    del facts
    for node in subject.nodes:
        if not is_standard(node) or node.op_type not in _SAME:
            continue
        inputs = node.inputs[_SAME[node.op_type]]
        kinds = dict.fromkeys(v.dtype for v in inputs if v is not None and v.dtype is not None)
        if len(kinds) > 1:
            yield Fault(
                name_of(node),
                f"operands in {' and '.join(kind.name for kind in kinds)}, expected one type",
                "cast one of them, or store constants in the type of the activations",
            )


def double(subject: Subject, facts: DeviceFacts) -> Iterator[Fault]:
    """Nothing is in double precision, which TensorRT clamps to float32."""
    del facts
    graph = subject.model.graph
    values = [*graph.inputs, *graph.initializers.values()]
    values += [value for node in subject.nodes for value in node.outputs]
    for value in values:
        if value.dtype == ir.DataType.DOUBLE:
            yield Fault(str(value.name), "in DOUBLE, expected FLOAT or smaller")


def cast_float8(subject: Subject, facts: DeviceFacts) -> Iterator[Fault]:
    """FP8 is made by QuantizeLinear and left by DequantizeLinear, never by a Cast."""
    del facts
    for node in subject.standard("Cast", "CastLike"):
        kinds = [value.dtype for value in (node.inputs[0], node.outputs[0]) if value is not None]
        found = next((kind for kind in kinds if kind in _FLOAT8), None)
        if found is not None:
            yield Fault(
                name_of(node),
                f"casts {found.name}, expected quantizers around it",
                "store constants in FP8 themselves, and quantize activations",
            )


def integer_bias(subject: Subject, facts: DeviceFacts) -> Iterator[Fault]:
    """No bias is dequantized from int32: TensorRT has biases in float alone."""
    del facts
    for each in subject.quantizers:
        if each.narrow_type == ir.DataType.INT32:
            yield Fault(
                name_of(each.node),
                "dequantizes int32, expected a bias in float",
                "store the bias in the type of the activations",
            )


def unknown_type(subject: Subject, facts: DeviceFacts) -> Iterator[Fault]:
    """Types are known around every operator that these rules compare; elsewhere they see nothing."""
    del facts
    checked = {*_SAME, "Cast", "QuantizeLinear", "DequantizeLinear"}
    for node in subject.nodes:
        if not is_standard(node) or node.op_type not in checked:
            continue
        unknown = [v for v in (*node.inputs, *node.outputs) if v is not None and v.dtype is None]
        if unknown:
            yield Fault(
                name_of(node),
                f"{len(unknown)} values without a type, expected one for each",
                "infer shapes and types before the check",
            )
