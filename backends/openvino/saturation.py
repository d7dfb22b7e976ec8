"""Whether OpenVINO's 8-bit kernels saturate on this processor; see `qdx.backends.saturation`."""

from __future__ import annotations

from functools import cache

import numpy as np

from qdx.backends.openvino.package import core, openvino
from qdx.backends.saturation import GREATEST_INPUT, greatest_inputs, greatest_weights, is_saturated

__all__ = ["saturates"]


@cache
def saturates() -> bool:
    """Lets OpenVINO convolve the greatest numbers; this takes 0.1 s, once for the process."""
    ov, ops = openvino(), openvino().opset13
    x = ops.parameter(list(greatest_inputs().shape), ov.Type.f32)
    low, high = np.float32(0), np.float32(GREATEST_INPUT)
    quantized = ops.fake_quantize(x, low, high, low, high, levels=256)
    weights = ops.convert(ops.constant(greatest_weights()), "f32")
    summed = ops.convolution(
        quantized, ops.multiply(weights, np.float32(1)), [1, 1], [0, 0], [0, 0], [1, 1]
    )
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core().compile_model(ov.Model([summed], [x], "sums"), "CPU", options)
    return is_saturated(compiled([greatest_inputs()])[0])
