"""Group norms that another activation scales or shifts, in operations that OpenVINO compiles.

Where element-wise operations follow a group norm, OpenVINO 2026 generates one kernel for all of them, with what computes
their other operand. It ends the process while it does so where that operand is computed by an element-wise operation of a
smaller shape, as `1 + scale` in residual blocks that a timestep scales and shifts. The norm over each group as an operation
of its own is no part of such a kernel.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from qdx.backends.openvino.package import openvino

__all__ = ["part_modulated_norms"]

_UNARY: Final = frozenset(
    {"Abs", "Clamp", "Elu", "Exp", "Gelu", "HSwish", "Mish", "Negative", "Relu", "Sigmoid", "Sqrt", "Swish", "Tanh"}
)  # fmt: skip
_BINARY: Final = frozenset(
    {"Add", "Divide", "Maximum", "Minimum", "Multiply", "Power", "PRelu", "SquaredDifference", "Subtract"}
)  # fmt: skip


def part_modulated_norms(model: Any) -> None:
    """Writes those norms out, in place: over the elements of a group, then a factor and a summand for each channel.

    Norms whose number of channels is open keep the operator.
    """
    for norm in model.get_ordered_ops():
        if norm.get_type_name() == "GroupNormalization" and _is_modulated(norm):
            shape = norm.get_input_partial_shape(0)
            if shape.rank.is_static and shape[1].is_static:
                _rewrite(norm)


def _is_modulated(node: Any) -> bool:
    """Whether an element-wise operation behind a node has another operand that is not constant."""
    for port in node.output(0).get_target_inputs():
        user = port.get_node()
        kind = user.get_type_name()
        if kind not in _UNARY | _BINARY:
            continue
        others = [
            user.input_value(index).get_node()
            for index in range(user.get_input_size())
            if index != port.get_index()
        ]
        if any(other.get_type_name() != "Constant" for other in others) or _is_modulated(user):
            return True
    return False


def _rewrite(norm: Any) -> None:
    opset = openvino().opset13
    x, scale, shift = (norm.input_value(index) for index in range(3))
    shape = x.get_partial_shape()
    channels, rank = shape[1].get_length(), shape.rank.get_length()
    attributes = norm.get_attributes()

    def sizes(*values: int) -> Any:
        return opset.constant(np.array(values, np.int64))

    grouped = opset.reshape(x, sizes(0, attributes["num_groups"], -1), special_zero=True)
    normal = opset.mvn(
        grouped,
        sizes(2),
        normalize_variance=True,
        eps=attributes["epsilon"],
        eps_mode="inside_sqrt",
    )
    whole = opset.reshape(normal, opset.shape_of(x), special_zero=False)
    if shape.is_static:
        whole = opset.reshape(normal, sizes(*shape.to_shape()), special_zero=False)
    along = sizes(1, channels, *[1] * (rank - 2))
    scaled = opset.multiply(whole, opset.reshape(scale, along, special_zero=False))
    result = opset.add(scaled, opset.reshape(shift, along, special_zero=False))
    result.set_friendly_name(norm.get_friendly_name())
    norm.output(0).replace(result.output(0))
