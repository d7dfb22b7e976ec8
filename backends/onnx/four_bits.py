"""Four-bit weights that meet quantized inputs, in eight bits: runtimes have no kernels of both."""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx_ir as ir

from qdx.backends.onnx.dequantizers import block_of, dequantized_activation, stored_weight

__all__ = ["widen_four_bits"]

_WIDER: Final = {ir.DataType.INT4: ir.DataType.INT8, ir.DataType.UINT4: ir.DataType.UINT8}


def widen_four_bits(model: ir.Model) -> None:
    """Stores four-bit weights of operations with quantized inputs in eight bits, in place.

    The eight-bit kernels take eight-bit weights; the values stay. Blocks have no such kernel.
    """
    widened: set[int] = set()
    for node in model.graph:
        if node.op_type not in {"Conv", "MatMul", "Gemm"}:
            continue
        weight = stored_weight(_untransposed(node.inputs[1]))
        if weight is None or block_of(weight) or dequantized_activation(node.inputs[0]) is None:
            continue
        for value in (weight.inputs[0], *weight.inputs[2:]):
            if value is not None and value.dtype in _WIDER and id(value) not in widened:
                widened.add(id(value))
                _widen(value)


def _untransposed(value: ir.Value | None) -> ir.Value | None:
    node = value.producer() if value is not None else None
    return node.inputs[0] if node is not None and node.op_type == "Transpose" else value


def _widen(value: ir.Value) -> None:
    assert value.dtype is not None
    assert value.const_value is not None
    assert value.shape is not None
    wider, tensor, name = _WIDER[value.dtype], value.const_value, value.name

    def read() -> ir.TensorProtocol:
        return ir.tensor(np.asarray(tensor.numpy()).astype(wider.numpy()), name=name)

    value.const_value = ir.LazyTensor(read, dtype=wider, shape=value.shape, name=name)
    value.dtype = wider
