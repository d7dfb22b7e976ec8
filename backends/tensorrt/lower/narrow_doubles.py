"""Double precision in float32: TensorRT has none. Models use it for the angles of positions."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

__all__ = ["narrow_doubles"]


def narrow_doubles(model: ir.Model) -> None:
    """Computes in float32 whatever a model computes in double, in place.

    Args:
        model: Its weights are bound; none of them is a double.
    """
    for value in model.graph.initializers.values():
        if value.dtype == ir.DataType.DOUBLE and value.const_value is not None:
            array = value.const_value.numpy().astype(np.float32)
            value.const_value = ir.Tensor(array, name=value.name)
            value.dtype = ir.DataType.FLOAT
    for node in model.graph:
        if node.op_type == "Cast" and node.attributes["to"].as_int() == ir.DataType.DOUBLE:
            node.attributes["to"] = ir.AttrInt64("to", ir.DataType.FLOAT)
        for value in node.outputs:
            if value.dtype == ir.DataType.DOUBLE:
                value.dtype = ir.DataType.FLOAT
