"""TensorRT's own operators for floats in blocks, as its parser reads them: what they take, and how graphs become them.

`TRT_FP4DynamicQuantize` gives elements in FP4 and scales of blocks in FP8, from an activation and the scale of the whole
tensor. `TRT_MXFP8DynamicQuantize` gives elements in FP8 and the exponents of powers of two (E8M0) in uint8, which
`TRT_MXFP8DequantizeLinear` takes. Blocks lie along the last axis.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import onnx_ir as ir
import torch
from onnx.defs import OpSchema
from onnxscript.values import Op, Opset

from qdx.exporter.formats import block_operators
from qdx.exporter.formats.block_floats import MXFP8_BLOCK, NVFP4_BLOCK

__all__ = [
    "DOMAIN",
    "FP4_QUANTIZE",
    "MXFP8_DEQUANTIZE",
    "MXFP8_QUANTIZE",
    "TRANSLATIONS",
    "complete_types",
    "has_float4",
    "scales_blocks",
]

DOMAIN: Final = "trt"
FP4_QUANTIZE: Final = "TRT_FP4DynamicQuantize"
MXFP8_QUANTIZE: Final = "TRT_MXFP8DynamicQuantize"
MXFP8_DEQUANTIZE: Final = "TRT_MXFP8DequantizeLinear"

_FLOATS: Final = ["tensor(float)", "tensor(float16)", "tensor(bfloat16)"]
_FLOAT8: Final = "tensor(float8e4m3fn)"
_AXIS: Final = -1

# A value of the graph under construction: an `onnx_ir.Value` that onnxscript can compute with.
Value = Any


def has_float4(program: torch.export.ExportedProgram) -> bool:
    """Whether a quantized program has 4-bit floats, which operator sets have from 23 on."""
    operator = torch.ops.qdx.dequantize.default
    return any(
        node.target is operator and node.args[-1] == "float4_e2m1fn" for node in program.graph.nodes
    )


def complete_types(model: ir.Model) -> None:
    """Types the elements of FP4 quantizers, which torch holds in FP8, and imports the operators; in place."""
    for node in model.graph:
        if node.domain == DOMAIN:
            model.opset_imports[DOMAIN] = 1
        if node.op_type == FP4_QUANTIZE:
            node.outputs[0].dtype = ir.DataType.FLOAT4E2M1


def scales_blocks(dequantize: ir.Node) -> bool:
    """Whether a DequantizeLinear makes nothing but scales of another, as the first level of NVFP4 does."""
    uses = list(dequantize.outputs[0].uses())
    return bool(uses) and all(
        use.idx == 1 and use.node.op_type == "DequantizeLinear" for use in uses
    )


def _operator(
    name: str, inputs: Mapping[str, str], outputs: Mapping[str, str], attributes: tuple[str, ...]
) -> Op:
    schema = OpSchema(
        name,
        DOMAIN,
        1,
        inputs=[OpSchema.FormalParameter(each, kind) for each, kind in inputs.items()],
        outputs=[OpSchema.FormalParameter(each, kind) for each, kind in outputs.items()],
        type_constraints=[("T", _FLOATS, "Floats that are not quantized.")],
        attributes=[OpSchema.Attribute(each, OpSchema.AttrType.INT) for each in attributes],
    )
    return Op(Opset(DOMAIN, 1), name, schema)


_SHARED: Final = ("axis", "block_size")
_fp4_quantize: Final = _operator(
    FP4_QUANTIZE,
    {"x": "T", "scale": "tensor(float)"},
    {"elements": "tensor(float4e2m1)", "block_scales": _FLOAT8},
    (*_SHARED, "scale_type"),
)
_mxfp8_quantize: Final = _operator(
    MXFP8_QUANTIZE,
    {"x": "T"},
    {"elements": _FLOAT8, "exponents": "tensor(uint8)"},
    (*_SHARED, "output_dtype"),
)
_mxfp8_dequantize: Final = _operator(
    MXFP8_DEQUANTIZE,
    {"elements": _FLOAT8, "exponents": "tensor(uint8)"},
    {"y": "T"},
    (*_SHARED, "output_dtype"),
)


def _translate_nvfp4(x: Value, scale: Value) -> Value:
    return _fp4_quantize(
        x,
        scale,
        axis=_AXIS,
        block_size=NVFP4_BLOCK,
        scale_type=int(ir.DataType.FLOAT8E4M3FN),
    )


def _translate_mxfp8(x: Value) -> Value:
    kind = int(ir.DataType.FLOAT8E4M3FN)
    return _mxfp8_quantize(x, axis=_AXIS, block_size=MXFP8_BLOCK, output_dtype=kind)


def _translate_mxfp8_back(elements: Value, exponents: Value) -> Value:
    kind = int(ir.DataType.FLOAT)
    return _mxfp8_dequantize(
        elements, exponents, axis=_AXIS, block_size=MXFP8_BLOCK, output_dtype=kind
    )


assert block_operators.BLOCK_QUANTIZERS  # importing it registers the operators
TRANSLATIONS: Final[Mapping[Callable[..., Any], Callable[..., Any]]] = MappingProxyType(
    {
        torch.ops.qdx.quantize_nvfp4.default: _translate_nvfp4,
        torch.ops.qdx.quantize_mxfp8.default: _translate_mxfp8,
        torch.ops.qdx.dequantize_mxfp8.default: _translate_mxfp8_back,
    }
)
"""For `qdx.backends.onnx.translations.Forms`."""
