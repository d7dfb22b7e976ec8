"""Arithmetic that changes nothing, such as diffusers' division by `output_scale_factor` of one."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

_NEUTRAL_RIGHT = {"Mul": 1.0, "Div": 1.0, "Add": 0.0, "Sub": 0.0}


def remove_neutral_arithmetic(model: ir.Model) -> None:
    """Removes scalar operations without effect, in place; dtypes and shapes stay.

    Before: `y = Div(x, 1.0); z = Relu(y)`.
    After: `z = Relu(x)`.
    """
    for node in list(model.graph):
        neutral = _NEUTRAL_RIGHT.get(node.op_type)
        if neutral is None or node.domain or len(node.inputs) != 2:  # x and the scalar
            continue
        x, scalar = node.inputs
        if x is None or scalar is None or not _is_scalar(scalar, neutral):
            continue
        if node.outputs[0].is_graph_output():
            continue
        node.outputs[0].replace_all_uses_with(x)
        model.graph.remove(node, safe=True)


def _is_scalar(value: ir.Value, wanted: float) -> bool:
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is None or tensor.size != 1 or len(tensor.shape) > 0:
        return False
    return bool(np.asarray(tensor.numpy()).reshape(()) == wanted)
