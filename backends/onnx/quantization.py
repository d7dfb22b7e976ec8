"""Quantize and dequantize operators in ONNX, and weight transposes that pass through them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnxscript.values import Opset

from qdx.backends.onnx.origin import note_origins
from qdx.exporter.errors import InternalError
from qdx.exporter.graph.ir import operators

# A value of the graph under construction: an `onnx_ir.Value` that onnxscript can compute with.
Value = Any

_ACTIVATIONS = {
    "int8": ir.DataType.INT8,
    "uint8": ir.DataType.UINT8,
    "float8_e4m3fn": ir.DataType.FLOAT8E4M3FN,
}


def quantization_table(op: Opset) -> dict[Callable[..., Any], Callable[..., Any]]:
    """Translations of the qdx operators for `torch.onnx.export`.

    Weights come as initializers that `qdx.backends.onnx.weights` binds, in the dtype's container; a
    four-bit dtype is set there. Activations have eight bits on every target.
    """

    def quantize_tensor(x: Value, scale: float, zero_point: int, dtype: str) -> Value:
        if dtype not in _ACTIVATIONS:
            raise InternalError(f"an activation in {dtype} has no form in ONNX")
        return op.QuantizeLinear(x, *_parameters(op, scale, zero_point, _ACTIVATIONS[dtype]))

    def dequantize_tensor(q: Value, scale: float, zero_point: int) -> Value:
        known = q.dtype in _ACTIVATIONS.values()
        dtype = q.dtype if known else ir.DataType.INT8
        return op.DequantizeLinear(q, *_parameters(op, scale, zero_point, dtype))

    def quantize(
        x: Value, scale: Value, zero_point: Value | None, axis: int, block: int, dtype: str
    ) -> Value:
        del dtype  # the zero point's
        return op.QuantizeLinear(x, scale, zero_point, axis=axis, block_size=block)

    def dequantize(
        q: Value, scale: Value, zero_point: Value | None, axis: int, block: int, dtype: str
    ) -> Value:
        del dtype
        return op.DequantizeLinear(q, scale, zero_point, axis=axis, block_size=block)

    table = torch.ops.qdx
    assert operators.CONTAINERS  # importing it registers the operators
    return {
        table.quantize_tensor.default: quantize_tensor,
        table.dequantize_tensor.default: dequantize_tensor,
        table.quantize.default: quantize,
        table.dequantize.default: dequantize,
    }


def _parameters(
    op: Opset, scale: float, zero_point: int, dtype: ir.DataType
) -> tuple[Value, Value]:
    return (
        op.Constant(value=ir.tensor(np.asarray(scale, dtype=np.float32))),
        op.Constant(value=ir.Tensor(np.asarray(zero_point, dtype=dtype.numpy()), dtype=dtype)),
    )


def move_transposes_to_integers(model: ir.Model) -> None:
    """Turns Transpose(DequantizeLinear(w)) into DequantizeLinear(Transpose(w)), in place.

    Runtimes look for a matrix product right behind its DequantizeLinear; the transpose of an
    initializer is then folded into the stored integers.
    """
    for node in list(model.graph):
        if node.op_type != "Transpose" or node.inputs[0] is None:
            continue
        dequantize = node.inputs[0].producer()
        if dequantize is None or dequantize.op_type != "DequantizeLinear":
            continue
        if not all(value is None or value.is_initializer() for value in dequantize.inputs):
            continue  # an activation, or a weight whose scales are dequantized too
        _move(model, node, dequantize)


def _move(model: ir.Model, transpose: ir.Node, dequantize: ir.Node) -> None:
    permutation = list(transpose.attributes["perm"].as_ints())
    moved = []
    for value in dequantize.inputs:
        if value is None or value.shape is None or len(value.shape) != len(permutation):
            moved.append(value)  # one scale for each index of the axis has no order to change
            continue
        swap = ir.node("Transpose", [value], {"perm": permutation})
        note_origins(swap, transpose)
        swap.outputs[0].type = value.type
        swap.outputs[0].shape = ir.Shape([value.shape[axis] for axis in permutation])
        model.graph.insert_before(transpose, swap)
        moved.append(swap.outputs[0])
    axis = dequantize.attributes["axis"].as_int() % len(permutation)
    block = (
        dequantize.attributes["block_size"].as_int() if "block_size" in dequantize.attributes else 0
    )
    result = transpose.outputs[0]
    again = ir.node(
        "DequantizeLinear",
        moved,
        {"axis": permutation.index(axis), "block_size": block},
        outputs=[ir.Value(shape=result.shape, type=result.type)],
    )
    again.metadata_props.update(dequantize.metadata_props)
    model.graph.insert_before(transpose, again)
    result.replace_all_uses_with(again.outputs[0])
    model.graph.remove(transpose, safe=True)
    if not dequantize.outputs[0].uses():
        model.graph.remove(dequantize, safe=True)
