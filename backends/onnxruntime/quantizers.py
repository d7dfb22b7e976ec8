"""Quantizers in the form that the fusions read, and none that a neighbour has already applied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qdx.backends.onnxruntime.patterns import (
    computed_initializer,
    dequantized_activation,
    dequantized_weight,
)

__all__ = ["share_quantizers", "write_zero_points"]


def share_quantizers(model: ir.Model) -> None:
    """Removes quantizers of what was just dequantized with the same numbers, in place.

    Before: `q2 = Q(DQ(q1, scale, zero), scale, zero)`.
    After: `q1` for `q2`: quantizing is the inverse of dequantizing.
    """
    for node in list(model.graph):
        if node.op_type != "QuantizeLinear":
            continue
        before = dequantized_activation(node.inputs[0])
        if before is None or not _same(node.inputs[1:], before.inputs[1:]):
            continue
        integers = before.inputs[0]
        assert integers is not None
        node.outputs[0].replace_all_uses_with(integers, replace_graph_outputs=True)
        model.graph.remove(node, safe=True)


def write_zero_points(model: ir.Model) -> None:
    """Gives weights of eight-bit operations zero points, in place.

    ONNX lets it be left out; the fusion to QGemm then does not happen.
    """
    found: dict[int, ir.Value] = {}
    for node in model.graph:
        weight = dequantized_weight(node.outputs[0]) if node.outputs else None
        if weight is None or len(weight.inputs) > 2:  # integers, scale
            continue
        users = [use.node for use in weight.outputs[0].uses()]
        if all(dequantized_activation(user.inputs[0]) is None for user in users):
            continue
        integers, scale = weight.inputs[:2]
        assert integers is not None
        assert integers.dtype is not None
        assert scale is not None
        assert scale.shape is not None
        shape = [int(size) for size in scale.shape if isinstance(size, int)]
        if id(scale) not in found:
            kind = integers.dtype

            def read(kind: ir.DataType = kind, shape: Sequence[int] = shape) -> NDArray[Any]:
                return np.zeros(shape, dtype=kind.numpy())

            name = f"{integers.name}_zero_point"
            found[id(scale)] = computed_initializer(model.graph, name, read, kind, shape)
        node.resize_inputs(3)
        node.replace_input_with(2, found[id(scale)])


def _same(first: Sequence[ir.Value | None], second: Sequence[ir.Value | None]) -> bool:
    return len(first) == len(second) and all(
        a is b or _equal(a, b) for a, b in zip(first, second, strict=True)
    )


def _equal(first: ir.Value | None, second: ir.Value | None) -> bool:
    a, b = (
        None if value is None else ir.convenience.get_const_tensor(value)
        for value in (first, second)
    )
    if a is None or b is None or a.dtype != b.dtype:
        return False
    return bool(np.array_equal(a.numpy(), b.numpy()))
