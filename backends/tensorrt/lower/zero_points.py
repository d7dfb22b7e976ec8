"""Zero points written out: without one ONNX means unsigned integers and TensorRT signed ones."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from qdx.backends.tensorrt.operators import scales_blocks

__all__ = ["write_zero_points"]

_QUANTIZERS = frozenset({"QuantizeLinear", "DequantizeLinear"})


def write_zero_points(model: ir.Model) -> None:
    """Gives every dequantizer of a stored weight that has none a zero point of zeros, in place.

    4-bit floats and their scales have none: there is one way to read them.
    """
    shared: dict[tuple[ir.DataType, tuple[int, ...]], ir.Value] = {}
    for node in model.graph:
        if node.op_type not in _QUANTIZERS or (len(node.inputs) > 2 and node.inputs[2] is not None):
            continue
        integers, scale = node.inputs[:2]
        assert integers is not None
        if integers.dtype == ir.DataType.FLOAT4E2M1 or scales_blocks(node):
            continue
        assert integers.dtype is not None
        assert scale is not None
        assert scale.shape is not None
        key = (integers.dtype, tuple(scale.shape.numpy()))
        if key not in shared:
            shared[key] = _zeros(model, *key)
        node.resize_inputs(3)
        node.replace_input_with(2, shared[key])


def _zeros(model: ir.Model, dtype: ir.DataType, shape: tuple[int, ...]) -> ir.Value:
    label = "x".join(map(str, shape)) or "scalar"
    name = f"zero_point_{dtype.name.lower()}_{label}"
    tensor = ir.Tensor(np.zeros(shape, dtype=dtype.numpy()), dtype=dtype, name=name)
    value = ir.Value(
        name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype), const_value=tensor
    )
    model.graph.register_initializer(value)
    return value
