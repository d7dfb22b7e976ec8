"""Quantized linear operations as Gemm, which ONNX Runtime runs as QGemm.

QGemm takes the bias as integers and answers in float, so nothing is rounded behind the product; a
MatMul followed by an Add would be fused to a float Gemm.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from qdx.backends.onnx.origin import note_origins
from qdx.backends.onnxruntime.patterns import (
    add_node,
    axis_of,
    constant,
    dequantized_activation,
    dequantized_weight,
    only_consumer,
    shape_of,
)

__all__ = [
    "Operands",
    "dequantized",
    "linear_to_gemm",
    "operands_of",
    "replace",
    "reshaped",
    "sizes_of",
]


@dataclass(frozen=True)
class Operands:
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
        operands = operands_of(node) if node.op_type == "MatMul" else None
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
        size = sizes_of(node.inputs[1])
        if id(integers) not in flat:
            flat[id(integers)] = reshaped(operands.activation, integers, size[0])
        x = dequantized(node, operands.activation, flat[id(integers)])
        product = add_node(
            add, "Gemm", [x, node.inputs[1], bias], shape=[None, size[1]], dtype=ir.DataType.FLOAT
        )
        made = product.producer()
        assert made is not None
        note_origins(made, node, add)
        rank = len(integers.shape)
        back = shape_of(add, integers, rank - 1, size[1])
        replace(add, "Reshape", [product, back])
        model.graph.remove(node, safe=True)
    RemoveUnusedNodesPass()(model)  # the quantizers that were rebuilt


def operands_of(node: ir.Node) -> Operands | None:
    """What a product is made of, if both sides are quantized."""
    activation = dequantized_activation(node.inputs[0])
    weight = dequantized_weight(node.inputs[1])
    return None if activation is None or weight is None else Operands(activation, weight)


def _bias_of(add: ir.Node, product: ir.Value) -> ir.Value | None:
    others = [value for value in add.inputs if value is not product]
    if len(others) != 1 or others[0] is None or not others[0].is_initializer():
        return None
    return others[0] if len(others[0].shape or ()) == 1 else None


def sizes_of(value: ir.Value | None) -> list[int]:
    """The sizes of a value whose shape is known."""
    assert value is not None
    assert value.shape is not None
    sizes = [size for size in value.shape if isinstance(size, int)]
    assert len(sizes) == len(value.shape)
    return sizes


def reshaped(before: ir.Node, integers: ir.Value, columns: int) -> ir.Value:
    """Integers as a matrix with that many columns."""
    assert isinstance(before.graph, ir.Graph)
    target = constant(before.graph, [-1, columns])
    return add_node(
        before, "Reshape", [integers, target], shape=[None, columns], dtype=integers.dtype
    )


def dequantized(before: ir.Node, activation: ir.Node, integers: ir.Value) -> ir.Value:
    """Other integers dequantized with the numbers of an activation."""
    return add_node(
        before,
        "DequantizeLinear",
        [integers, *activation.inputs[1:]],
        shape=integers.shape,
        dtype=ir.DataType.FLOAT,
    )


def replace(
    node: ir.Node, kind: str, inputs: list[ir.Value], attributes: dict[str, list[int]] | None = None
) -> None:
    """Puts another node in a node's place."""
    result = node.outputs[0]
    value = add_node(node, kind, inputs, attributes, shape=result.shape, dtype=result.dtype)
    result.replace_all_uses_with(value, replace_graph_outputs=True)
    value.name = result.name
    assert node.graph is not None
    node.graph.remove(node, safe=True)
