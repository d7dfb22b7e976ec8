"""Biases as integers: ONNX Runtime's eight-bit kernels add them to their 32-bit sums."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qdx.backends.onnxruntime.patterns import (
    add_node,
    computed_initializer,
    dequantized_activation,
    dequantized_weight,
    only_consumer,
)
from qdx.exporter.errors import Refusal, TargetRefusal

__all__ = ["quantize_biases"]

_BIAS = 2
_LARGEST = 2**31 - 1


def quantize_biases(model: ir.Model) -> None:
    """Turns float biases of quantized convolutions and Gemms into 32-bit integers, in place.

    Before: `Conv(DQ(x), DQ(w), bias)`.
    After: `Conv(DQ(x), DQ(w), DQ(int32))` with scale(x) * scale(w), the unit of the kernel's sums. The
    rounding is a half of that unit.
    """
    for node in list(model.graph):
        if node.op_type not in {"Conv", "Gemm"} or len(node.inputs) <= _BIAS:
            continue
        activation = dequantized_activation(node.inputs[0])
        weight = dequantized_weight(node.inputs[1])
        bias = node.inputs[_BIAS]
        if activation is None or weight is None or bias is None or not bias.is_initializer():
            continue
        if node.op_type == "Conv" and only_consumer(node.outputs[0], "QuantizeLinear") is None:
            continue  # runs in float
        node.replace_input_with(_BIAS, _dequantized(model.graph, node, activation, weight, bias))


def _dequantized(
    graph: ir.Graph, node: ir.Node, activation: ir.Node, weight: ir.Node, bias: ir.Value
) -> ir.Value:
    x_scale, w_scale = activation.inputs[1], weight.inputs[1]
    assert x_scale is not None
    assert w_scale is not None
    assert x_scale.const_value is not None
    assert w_scale.const_value is not None
    assert bias.const_value is not None
    assert bias.shape is not None
    name, unit_x = str(bias.name), np.float32(x_scale.const_value.numpy())
    tensor, scales, size = bias.const_value, w_scale.const_value, bias.shape[0]
    assert isinstance(size, int)

    def unit() -> NDArray[Any]:
        return np.broadcast_to(unit_x * scales.numpy().astype(np.float32), (size,))

    def integers() -> NDArray[Any]:
        values = np.rint(tensor.numpy().astype(np.float64) / unit())
        if np.abs(values).max(initial=0) > _LARGEST:
            raise _refusal(name)
        return np.asarray(values, dtype=np.int32)

    inputs = [
        computed_initializer(graph, f"{name}_int32", integers, ir.DataType.INT32, [size]),
        computed_initializer(graph, f"{name}_scale", unit, ir.DataType.FLOAT, [size]),
    ]
    return add_node(
        node, "DequantizeLinear", inputs, {"axis": 0}, shape=[size], dtype=ir.DataType.FLOAT
    )


def _refusal(name: str) -> TargetRefusal:
    reason = "the bias of a channel with next to no weights does not fit 32 bits"
    return TargetRefusal(
        f"`{name}`: {reason}",
        refusals=(Refusal(name, reason),),
        hint="keep this operation in float32",
    )
