"""Group norms before a quantizer, in sums over each channel.

OpenVINO computes a group norm on [samples x groups, channels of a group, height, width]. No view of a tensor with its
channels last has that shape, and its 8-bit convolutions want channels last: so each such norm costs two reorderings,
one in float and one back. Sums over a channel keep the order, and the norm becomes one multiplication and one addition
that the activation function and the quantizer are fused with. One W8A8 UNet became 8 % faster. Its float32 artifact did
not, and keeps the operator.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from qdx.backends.openvino.package import openvino

__all__ = ["norms_by_channel"]

_QUANTIZER: Final = "FakeQuantize"
_ACTIVATION: Final = "Swish"


def norms_by_channel(model: Any) -> None:
    """Rewrites the group norms that nothing but quantizers follow, directly or behind a SiLU, in place.

    With the means m and the means of squares s over a group, the result is x a + b of each channel, where
    a = scale / sqrt(max(s - m^2, 0) + epsilon) and b = shift - m a. In float32 the variance s - m^2 is wrong by
    some 1e-7 m^2: it counts where a group's mean is hundreds of times its deviation. Norms whose channels or
    picture sizes are open keep the operator.
    """
    for norm in model.get_ordered_ops():
        if (
            norm.get_type_name() == "GroupNormalization"
            and _is_quantized(norm)
            and _is_static(norm)
        ):
            _rewrite(norm)


def _is_quantized(node: Any) -> bool:
    users = [port.get_node() for port in node.output(0).get_target_inputs()]
    return bool(users) and all(
        user.get_type_name() == _QUANTIZER
        or (user.get_type_name() == _ACTIVATION and _is_quantized(user))
        for user in users
    )


def _is_static(norm: Any) -> bool:
    shape = norm.get_input_partial_shape(0)
    return bool(shape.rank.is_static) and all(size.is_static for size in list(shape)[1:])


def _rewrite(norm: Any) -> None:
    ov = openvino()
    opset = ov.opset13
    x, scale, shift = (norm.input_value(index) for index in range(3))
    channels, *sizes = (size.get_length() for size in list(x.get_partial_shape())[1:])
    attributes = norm.get_attributes()
    groups = attributes["num_groups"]

    def number(value: float) -> Any:
        return opset.constant(np.float32(value))

    def shaped(value: Any, *shape: int) -> Any:
        return opset.reshape(value, opset.constant(np.array(shape, np.int64)), special_zero=True)

    picture = opset.constant(np.arange(2, 2 + len(sizes), dtype=np.int64))
    group = opset.constant(np.array([2], np.int64))
    in_groups = groups, channels // groups
    length = opset.reduce_l2(x, picture, keep_dims=True)
    squares = opset.multiply(opset.multiply(length, length), number(1 / math.prod(sizes)))
    means = opset.reduce_mean(x, picture, keep_dims=True)
    mean = opset.reduce_mean(shaped(means, 0, *in_groups), group, keep_dims=True)
    square = opset.reduce_mean(shaped(squares, 0, *in_groups), group, keep_dims=True)
    variance = opset.maximum(opset.subtract(square, opset.multiply(mean, mean)), number(0))
    inverse = opset.power(opset.add(variance, number(attributes["epsilon"])), number(-0.5))
    factor = opset.multiply(inverse, shaped(scale, 1, *in_groups))
    offset = opset.subtract(shaped(shift, 1, *in_groups), opset.multiply(mean, factor))
    ones = (1,) * len(sizes)
    scaled = opset.multiply(x, shaped(factor, 0, channels, *ones))
    result = opset.add(scaled, shaped(offset, 0, channels, *ones))
    result.set_friendly_name(norm.get_friendly_name())
    norm.output(0).replace(result.output(0))
