"""Products in float32 for devices that have none: TensorRT-RTX compiles none for Turing, and convolutions in float32 it does.

What a component in float16 keeps in float32, such as the last layer of a T5 encoder's feed-forward blocks, is thereby still
computed in float32.

Before:
    y[b, s, n] = MatMul(x[b, s, k], w[k, n])
After:
    y = Transpose(Conv(Transpose(x)[b, k, s], Unsqueeze(Transpose(w))[n, k, 1]))[b, s, n]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import onnx_ir as ir

from qdx.backends.tensorrt.lint.subject import attribute, is_standard, rooted_in_constant

__all__ = ["products_to_convolutions"]

_SWAPPED: Final = (0, 2, 1)


def products_to_convolutions(model: ir.Model) -> None:
    """Writes products of float32 with a constant weight as convolutions of one position.

    Others stay, which the builder refuses: products of two activations, and those of weights of other ranks than 2.
    """
    for node in tuple(model.graph):
        if is_standard(node) and node.op_type in {"MatMul", "Gemm"} and _is_ours(node):
            _replace(model, node)


def _is_ours(node: ir.Node) -> bool:
    data, weight = node.inputs[:2]
    if data is None or weight is None or data.shape is None or weight.shape is None:
        return False
    factors = [
        node.attributes[one].as_float() for one in ("alpha", "beta") if one in node.attributes
    ]
    plain = all(one == 1 for one in factors) and not attribute(node, "transA", 0)
    return (
        data.dtype == weight.dtype == ir.DataType.FLOAT
        and rooted_in_constant(weight)
        and len(weight.shape) == 2
        and len(data.shape) in {2, 3}
        and plain
    )


def _replace(model: ir.Model, node: ir.Node) -> None:
    """Puts a convolution of the same name in the place of a product."""
    data, weight = node.inputs[:2]
    assert data is not None
    assert weight is not None
    assert data.shape is not None
    assert weight.shape is not None
    out, name = node.outputs[0], str(node.name)
    made: list[ir.Node] = []

    def step(kind: str, inputs: Sequence[ir.Value], shape: Sequence[int | ir.SymbolicDim], **attributes: Any) -> ir.Value:  # fmt: skip
        value = ir.Value(name=f"{out.name}/{kind.lower()}{len(made)}", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(shape))  # fmt: skip
        own = name if kind == "Conv" else f"{name}/{kind.lower()}{len(made)}"
        made.append(ir.node(kind, list(inputs), attributes=attributes or None, outputs=[value], name=own))  # fmt: skip
        return value

    first, axis = (_axis(model, f"{out.name}/axis{one}", one) for one in (0, 2))
    if attribute(node, "transB", 0):
        wide, deep = weight.shape
        kernel = weight
    else:
        deep, wide = weight.shape
        kernel = step("Transpose", [weight], [wide, deep], perm=[1, 0])
    kernel = step("Unsqueeze", [kernel, axis], [wide, deep, 1])
    bias = [one for one in node.inputs[2:] if one is not None]
    rows = data
    if (
        len(data.shape) == 2
    ):  # rows are positions: a batch of them with one each would be a product again
        rows = step("Unsqueeze", [data, first], [1, *data.shape])
    assert rows.shape is not None
    taken = step("Transpose", [rows], [rows.shape[one] for one in _SWAPPED], perm=_SWAPPED)
    assert taken.shape is not None
    shape = [taken.shape[0], wide, taken.shape[2]]
    result = step("Conv", [taken, kernel, *bias], shape, kernel_shape=[1])
    last = step("Transpose", [result], [shape[one] for one in _SWAPPED], perm=_SWAPPED)
    if rows is not data:
        assert last.shape is not None
        last = step("Squeeze", [last, first], last.shape[1:])
    model.graph.insert_before(node, made)
    last_name, last_shape = out.name, out.shape
    out.replace_all_uses_with(last, replace_graph_outputs=True)
    model.graph.remove(node, safe=True)
    last.name = last_name
    if last_shape is not None:
        last.shape = last_shape


def _axis(model: ir.Model, name: str, axis: int) -> ir.Value:
    """A constant with the number of an axis."""
    value = ir.Value(
        name=name,
        const_value=ir.tensor([axis], dtype=ir.DataType.INT64),
        type=ir.TensorType(ir.DataType.INT64),
        shape=ir.Shape([1]),
    )
    model.graph.register_initializer(value)
    return value
