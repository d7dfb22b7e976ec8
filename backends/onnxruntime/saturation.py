"""Whether ONNX Runtime's 8-bit kernels saturate on this processor; see `qdx.backends.saturation`."""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from qdx.backends.onnx.package import onnxruntime
from qdx.backends.onnx.session import session_options
from qdx.backends.saturation import greatest_inputs, greatest_weights, is_saturated

__all__ = ["saturates"]

_SUM_STEP: Final = 2**10
"""Between the levels of the sum, which has 8 bits too."""


@cache
def saturates() -> bool:
    """Lets ONNX Runtime convolve the greatest numbers; this takes some milliseconds, once for the process."""
    stored = {
        "one": np.float32(1),
        "step": np.float32(_SUM_STEP),
        "zero": np.uint8(0),
        "weights": greatest_weights(),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "one", "zero"], ["x/integers"]),
        helper.make_node("DequantizeLinear", ["x/integers", "one", "zero"], ["x/levels"]),
        helper.make_node("DequantizeLinear", ["weights", "one"], ["weights/levels"]),
        helper.make_node("Conv", ["x/levels", "weights/levels"], ["sum"]),
        helper.make_node("QuantizeLinear", ["sum", "step", "zero"], ["sum/integers"]),
        helper.make_node("DequantizeLinear", ["sum/integers", "step", "zero"], ["y"]),
    ]
    shape = greatest_inputs().shape
    graph = helper.make_graph(
        nodes,
        "sums",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session = onnxruntime().InferenceSession(
        model.SerializeToString(), session_options({}, 1), providers=["CPUExecutionProvider"]
    )
    (sums,) = session.run(["y"], {"x": greatest_inputs()})
    return is_saturated(sums)
