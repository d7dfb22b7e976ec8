"""Quantized linear operations and 1 x 1 convolutions as Gemm, which ONNX Runtime runs as QGemm.

QGemm takes the bias as integers and answers in float, so nothing is rounded behind the product; a
MatMul followed by an Add would be fused to a float Gemm, and a convolution to QLinearConv, which rounds
its output to eight bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from qdx.backends.onnxruntime.patterns import (
    add_node,
    axis_of,
    computed_initializer,
    constant,
    dequantized_activation,
    dequantized_weight,
    only_consumer,
    shape_of,
)

__all__ = ["linear_to_gemm", "pointwise_to_gemm"]

_CHANNELS_LAST, _CHANNELS_FIRST = [0, 2, 3, 1], [0, 3, 1, 2]


@dataclass(frozen=True)
class _Operands:
    """What a quantized product is made of.

    Attributes:
        activation: DequantizeLinear of the input.
        weight: DequantizeLinear of the weight.
    """

    activation: ir.Node
    weight: ir.Node


def linear_to_gemm(model: ir.Model) -> None:
    """Turns a quantized MatMul and the Add of its bias into Gemm on matrices, in place.

    Before: `y = Add(MatMul(DQ(x), DQ(w)), bias)`, x of any rank.
    After: `y = Reshape(Gemm(DQ(Reshape(x)), DQ(w), bias))`; operations on one x share its Reshape.
    """
    flat: dict[int, ir.Value] = {}
    for node in list(model.graph):
        operands = _operands(node) if node.op_type == "MatMul" else None
        add = only_consumer(node.outputs[0], "Add") if operands is not None else None
        bias = _bias_of(add, node.outputs[0]) if add is not None else None
        if operands is None or add is None or bias is None:
            continue
        integers = operands.activation.inputs[0]
        assert integers is not None
        if integers.shape is None or len(integers.shape) < 3:  # tokens
            continue
        if axis_of(operands.weight) not in {1, -1}:
            continue
        size = _sizes(node.inputs[1])
        if id(integers) not in flat:
            flat[id(integers)] = _reshaped(operands.activation, integers, size[0])
        x = _dequantized(node, operands.activation, flat[id(integers)])
        product = add_node(
            add, "Gemm", [x, node.inputs[1], bias], shape=[None, size[1]], dtype=ir.DataType.FLOAT
        )
        rank = len(integers.shape)
        back = shape_of(add, integers, rank - 1, size[1])
        _replace(add, "Reshape", [product, back])
        model.graph.remove(node, safe=True)
    RemoveUnusedNodesPass()(model)  # the quantizers that were rebuilt


def pointwise_to_gemm(model: ir.Model) -> None:
    """Turns a quantized 1 x 1 convolution whose output stays float into Gemm, in place.

    Before: `y = Conv(DQ(x), DQ(w), bias)`.
    After: `y = Transpose(Reshape(Gemm(DQ(Reshape(Transpose(x))), DQ(w), bias)))`, the first Transpose on
    integers; next to tokens ONNX Runtime removes both.
    """
    for node in list(model.graph):
        operands = _operands(node) if node.op_type == "Conv" else None
        if operands is None or not _is_pointwise(node):
            continue
        if only_consumer(node.outputs[0], "QuantizeLinear") is not None:
            continue
        integers = operands.activation.inputs[0]
        assert integers is not None
        assert integers.shape is not None
        batch, channels, height, width = integers.shape
        outputs = _sizes(node.inputs[1])[0]
        last = add_node(
            node,
            "Transpose",
            [integers],
            {"perm": _CHANNELS_LAST},
            shape=[batch, height, width, channels],
            dtype=integers.dtype,
        )
        assert isinstance(channels, int)
        matrix = _reshaped(node, last, channels)
        inputs = [_dequantized(node, operands.activation, matrix), _matrix(node, operands.weight)]
        bias = node.inputs[2] if len(node.inputs) > 2 else None  # x, w, bias
        if bias is not None:
            inputs.append(bias)
        product = add_node(
            node,
            "Gemm",
            inputs,
            {"transB": 1},
            shape=[None, outputs],
            dtype=ir.DataType.FLOAT,
        )
        image = add_node(
            node,
            "Reshape",
            [product, shape_of(node, last, 3, outputs)],
            shape=[batch, height, width, outputs],
            dtype=ir.DataType.FLOAT,
        )
        _replace(node, "Transpose", [image], {"perm": _CHANNELS_FIRST})
    RemoveUnusedNodesPass()(model)  # the quantizers that were rebuilt


def _is_pointwise(node: ir.Node) -> bool:
    weight = node.inputs[1]
    if weight is None or weight.shape is None or len(weight.shape) != 4:  # two dimensions
        return False
    rules = {"strides": 1, "pads": 0, "dilations": 1}
    for name, neutral in rules.items():
        found = node.attributes.get(name)
        if found is not None and any(number != neutral for number in found.as_ints()):
            return False
    groups = node.attributes.get("group")
    padding = node.attributes.get("auto_pad")
    return (
        list(weight.shape)[2:] == [1, 1]
        and (groups is None or groups.as_int() == 1)
        and (padding is None or padding.as_string() in {"NOTSET", "VALID"})
    )


def _operands(node: ir.Node) -> _Operands | None:
    activation = dequantized_activation(node.inputs[0])
    weight = dequantized_weight(node.inputs[1])
    return None if activation is None or weight is None else _Operands(activation, weight)


def _bias_of(add: ir.Node, product: ir.Value) -> ir.Value | None:
    others = [value for value in add.inputs if value is not product]
    if len(others) != 1 or others[0] is None or not others[0].is_initializer():
        return None
    return others[0] if len(others[0].shape or ()) == 1 else None


def _sizes(value: ir.Value | None) -> list[int]:
    assert value is not None
    assert value.shape is not None
    sizes = [size for size in value.shape if isinstance(size, int)]
    assert len(sizes) == len(value.shape)
    return sizes


def _reshaped(before: ir.Node, integers: ir.Value, columns: int) -> ir.Value:
    assert isinstance(before.graph, ir.Graph)
    target = constant(before.graph, [-1, columns])
    return add_node(
        before, "Reshape", [integers, target], shape=[None, columns], dtype=integers.dtype
    )


def _dequantized(before: ir.Node, activation: ir.Node, integers: ir.Value) -> ir.Value:
    return add_node(
        before,
        "DequantizeLinear",
        [integers, *activation.inputs[1:]],
        shape=integers.shape,
        dtype=ir.DataType.FLOAT,
    )


def _matrix(node: ir.Node, dequantize: ir.Node) -> ir.Value:
    """The convolution's weight [out, in, 1, 1] as a matrix [out, in], in integers."""
    stored = dequantize.inputs[0]
    assert stored is not None
    assert stored.const_value is not None
    assert stored.dtype is not None
    shape, tensor = _sizes(stored)[:2], stored.const_value

    def read() -> NDArray[Any]:
        return np.asarray(tensor.numpy()).reshape(shape)

    assert isinstance(node.graph, ir.Graph)
    name = str(stored.name)
    alone = len(stored.uses()) == 1 and len(dequantize.outputs[0].uses()) == 1
    if alone:  # the matrix takes over the name, by which the weight is known
        stored.name = f"{name}.convolution"
    matrix = computed_initializer(node.graph, name, read, stored.dtype, shape)
    return add_node(
        node,
        "DequantizeLinear",
        [matrix, *dequantize.inputs[1:]],
        {"axis": 0},
        shape=shape,
        dtype=ir.DataType.FLOAT,
    )


def _replace(
    node: ir.Node, kind: str, inputs: list[ir.Value], attributes: dict[str, list[int]] | None = None
) -> None:
    """Puts another node in a node's place."""
    result = node.outputs[0]
    value = add_node(node, kind, inputs, attributes, shape=result.shape, dtype=result.dtype)
    result.replace_all_uses_with(value, replace_graph_outputs=True)
    value.name = result.name
    assert node.graph is not None
    node.graph.remove(node, safe=True)
