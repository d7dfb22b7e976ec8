"""Weights that are stored in fewer bits than they are computed in."""

from __future__ import annotations

import onnx_ir as ir

from qdx.backends.onnx.quantization import move_transposes_to_integers
from qdx.backends.onnxruntime.patterns import (
    add_node,
    axis_of,
    constant,
    dequantized_activation,
    stored_weight,
)

__all__ = ["decompress_once", "gemm_to_matmul"]

_INTEGERS = frozenset([ir.DataType.INT4, ir.DataType.UINT4, ir.DataType.INT8, ir.DataType.UINT8])


def decompress_once(model: ir.Model) -> None:
    """Writes the dequantization of stored weights as arithmetic where no kernel takes it, in place.

    ONNX Runtime runs DequantizeLinear in every call, but computes a Cast, Sub and Mul of initializers
    when the model is opened. Linear operations of integers are left to its MatMulNBits.

    Before: `Conv(x, DequantizeLinear(w, scale, zero_point))`.
    After: `Conv(x, Mul(Sub(Cast(w), Cast(zero_point)), scale))`, scale and zero point shaped to broadcast.
    """
    for node in list(model.graph):
        if node.op_type != "DequantizeLinear" or stored_weight(node.outputs[0]) is None:
            continue
        users = [use.node for use in node.outputs[0].uses()]
        if not users or any(_has_kernel(user, node) for user in users):
            continue
        result = _arithmetic(node)
        node.outputs[0].replace_all_uses_with(result)
        model.graph.remove(node, safe=True)


def _has_kernel(user: ir.Node, weight: ir.Node) -> bool:
    stored = weight.inputs[0]
    assert stored is not None
    if stored.dtype not in _INTEGERS:
        return stored.dtype == ir.DataType.INT32  # a bias
    if user.op_type == "Conv":
        return dequantized_activation(user.inputs[0]) is not None
    return user.op_type in {"MatMul", "Gemm"}


def gemm_to_matmul(model: ir.Model) -> None:
    """Turns a Gemm of a stored weight and a float input into MatMul and Add, in place, before binding.

    MatMulNBits wants the weight as `[in, out]`; the Transpose is folded into the stored integers.

    Before: `y = Gemm[transB=1](x, DQ(w), bias)`.
    After: `y = Add(MatMul(x, DQ(Transpose(w))), bias)`.
    """
    for node in list(model.graph):
        if node.op_type != "Gemm" or node.attributes.get_int("transB", 0) != 1:
            continue
        weight, result = node.inputs[1], node.outputs[0]
        if stored_weight(weight) is None or dequantized_activation(node.inputs[0]) is not None:
            continue
        assert weight is not None
        assert weight.shape is not None
        turned = add_node(
            node,
            "Transpose",
            [weight],
            {"perm": [1, 0]},
            shape=list(weight.shape)[::-1],
            dtype=weight.dtype,
        )
        shape, dtype = result.shape, result.dtype
        value = add_node(node, "MatMul", [node.inputs[0], turned], shape=shape, dtype=dtype)
        if len(node.inputs) > 2 and node.inputs[2] is not None:  # x, w, bias
            value = add_node(node, "Add", [value, node.inputs[2]], shape=shape, dtype=dtype)
        value.name = result.name
        result.replace_all_uses_with(value, replace_graph_outputs=True)
        model.graph.remove(node, safe=True)
    move_transposes_to_integers(model)


def _arithmetic(node: ir.Node) -> ir.Value:
    stored, scale = node.inputs[0], node.inputs[1]
    zero_point = node.inputs[2] if len(node.inputs) > 2 else None  # w, scale, zero
    assert stored is not None
    assert scale is not None
    assert stored.shape is not None
    value = _cast(node, stored)
    shape = list(stored.shape)
    if zero_point is not None:
        zero = _spread(node, _cast(node, zero_point))
        value = add_node(node, "Sub", [value, zero], shape=shape, dtype=ir.DataType.FLOAT)
    return add_node(
        node, "Mul", [value, _spread(node, scale)], shape=shape, dtype=ir.DataType.FLOAT
    )


def _cast(node: ir.Node, value: ir.Value) -> ir.Value:
    return add_node(
        node, "Cast", [value], {"to": ir.DataType.FLOAT}, shape=value.shape, dtype=ir.DataType.FLOAT
    )


def _spread(node: ir.Node, value: ir.Value) -> ir.Value:
    """Numbers along the axis in a shape that broadcasts against the weight."""
    assert isinstance(node.graph, ir.Graph)
    weight = node.inputs[0]
    assert weight is not None
    assert weight.shape is not None
    assert value.shape is not None
    if len(value.shape) == 0:
        return value
    rank = len(weight.shape)
    sizes = [1] * rank
    sizes[axis_of(node) % rank] = -1
    shape = [value.shape[0] if size == -1 else 1 for size in sizes]
    return add_node(
        node, "Reshape", [value, constant(node.graph, sizes)], shape=shape, dtype=value.dtype
    )
