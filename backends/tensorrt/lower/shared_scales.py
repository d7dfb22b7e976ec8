"""One scale for 8-bit weights whose product is in float16; what each channel has of its own multiplies the result.

Before: `y = MatMul(DequantizeLinear(x), DequantizeLinear(w, scales))`, with a scale for each output channel.
After: `y = Mul(MatMul(DequantizeLinear(x), DequantizeLinear(w, shared)), ratios)`, where shared * ratios = scales.

In the log of TensorRT-RTX's builder (1.7) the product of a weight with scales of channels gives float16, and the weight's
DequantizeLinear stands again in the kernel behind it, which multiplies by them: what passes between the two is sums of
products of whole numbers in a type that ends at 65504, where five products of 127 * 127 are beyond. One scale is applied
by the product itself: the log has its DequantizeLinear nowhere else. Weights that read one tensor share theirs, so that
the builder makes one product of query, key and value as before, and as many kernels. TensorRT itself builds on a device
alone: what it makes of either form has not been seen, and the numbers that the file stands for are the same there.

Products in bfloat16 and float32 keep their scales: both hold any such sum, in their own precision. Convolutions do too:
the builder gives them results in float32, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qdx.backends.onnx.dequantizers import block_of
from qdx.backends.onnx.origin import origins
from qdx.backends.tensorrt.lint.products import Operand, operand
from qdx.backends.tensorrt.lint.subject import attribute
from qdx.backends.tensorrt.lower.channel_ratios import ObservedWeight, SharedScale
from qdx.exporter.errors import InternalError

__all__ = ["share_scales", "write_ratios_last"]

_LARGEST_INTEGERS: Final = {ir.DataType.INT8: 128.0, ir.DataType.FLOAT8E4M3FN: 448.0}
_RATIO: Final = "qdx.ratio"


def share_scales(model: ir.Model, float32: AbstractSet[str]) -> None:
    """Takes the scales of channels out of the dequantizers of linear weights with quantized inputs, in place.

    Args:
        model: To be typed in float16; its weights are bound and lazy, their scales as the quantizer made them.
        float32: Names of the graph's nodes that compute in float32 whatever the model is typed in.

    Raises:
        InternalError: A weight has scales along the dimension that is reduced.
    """
    found = [one for node in model.graph for one in _products(node, float32)]
    weights: dict[int, ObservedWeight] = {}
    for group in _connected(found):
        shared = SharedScale(f"{group[0].stored.name}_shared_scale")
        for one in group:
            weight = weights.get(id(one.stored))
            if weight is None:
                weight = weights[id(one.stored)] = ObservedWeight(one.stored, one.scales, one.axis)
            shared.takes(weight, one.largest_input)
        _rewrite(model, group, shared, weights)


def write_ratios_last(model: ir.Model) -> None:
    """Moves the ratios behind all other initializers: they are known once the weights that share a scale were read."""
    initializers = model.graph.initializers
    for value in [one for one in initializers.values() if _RATIO in one.meta]:
        del initializers[str(value.name)]
        initializers[str(value.name)] = value


@dataclass(frozen=True)
class _Product:
    """A linear layer in 8 bits whose weight has scales of channels.

    Attributes:
        node: MatMul or Gemm.
        source: What dequantizes its input.
        dequantizer: Of its weight.
        stored: The initializer of the weight's integers, or 8-bit floats.
        scales: The initializer of their scales.
        axis: Dimension of channels in what is stored.
        largest_input: The largest magnitude that its input can have.
    """

    node: ir.Node
    source: ir.Node
    dequantizer: ir.Node
    stored: ir.Value
    scales: ir.Value
    axis: int
    largest_input: float


def _products(node: ir.Node, float32: AbstractSet[str]) -> Iterator[_Product]:
    """The product that a node is; nothing for other nodes, and for those whose result is in float32."""
    if node.op_type not in {"MatMul", "Gemm"} or not float32.isdisjoint(origins(node)):
        return
    left, right = operand(node.inputs[0]), operand(node.inputs[1])
    source, dequantizer = left.dequantizer, right.dequantizer
    kind = right.narrow_type
    if source is None or dequantizer is None or kind is None or right.passed or not _unscaled(node):
        return
    if left.constant or left.narrow_type != kind or kind not in _LARGEST_INTEGERS:
        return
    step, scales = _number(source.inputs[1]), dequantizer.inputs[1]
    if step is None or scales is None or scales.shape is None or len(scales.shape) != 1:
        return
    if block_of(dequantizer) or not right.constant:
        return
    stored, axis = _stored(node, right)
    yield _Product(node, source, dequantizer, stored, scales, axis, step * _LARGEST_INTEGERS[kind])


def _unscaled(node: ir.Node) -> bool:
    """Whether a product has no factors of its own, as a Gemm may."""
    factors = [node.attributes[name] for name in ("alpha", "beta") if name in node.attributes]
    return all(factor.as_float() == 1 for factor in factors)


def _number(value: ir.Value | None) -> float | None:
    """The scale of an input; None where it is no constant number."""
    tensor = None if value is None else value.const_value
    return float(tensor.numpy()) if tensor is not None and not len(tensor.shape) else None


def _stored(node: ir.Node, weight: Operand) -> tuple[ir.Value, int]:
    """The initializer of a weight and its dimension of channels, past the turn of one that is read both ways."""
    dequantizer, value = weight.dequantizer, weight.value
    assert dequantizer is not None
    assert value is not None
    assert value.shape is not None
    rank = len(value.shape)
    channels = 0 if node.op_type == "Gemm" and attribute(node, "transB", 0) else rank - 1
    axis = attribute(dequantizer, "axis", 1) % rank
    if axis != channels:
        raise InternalError(
            f"`{node.name}`: its weight has scales along axis {axis}, not {channels}"
        )
    data = dequantizer.inputs[0]
    turn = None if data is None else data.producer()
    if turn is not None:
        axis, data = turn.attributes["perm"].as_ints()[axis], turn.inputs[0]
    assert data is not None
    return data, axis


def _connected(found: Sequence[_Product]) -> list[list[_Product]]:
    """Products in groups: those that read one quantized input or one weight are in one."""
    groups: list[tuple[set[int], list[_Product]]] = []
    for one in found:
        keys, members = {id(one.source), id(one.stored)}, [one]
        met = [group for group in groups if not group[0].isdisjoint(keys)]
        groups = [group for group in groups if group[0].isdisjoint(keys)]
        keys = keys.union(*(group[0] for group in met))
        groups.append((keys, [*(each for group in met for each in group[1]), *members]))
    return [members for _, members in groups]


def _rewrite(
    model: ir.Model,
    group: Sequence[_Product],
    shared: SharedScale,
    weights: dict[int, ObservedWeight],
) -> None:
    scale = _initializer(model, shared.name, (), lambda: np.asarray(shared.scale(), np.float32))
    ratios: dict[int, ir.Value] = {}
    again: dict[int, ir.Value] = {}
    for one in group:
        stored, dequantizer = id(one.stored), id(one.dequantizer)
        if stored not in ratios:
            ratios[stored] = _ratios(model, shared, weights[stored])
        if dequantizer not in again:
            again[dequantizer] = _dequantized(model, one.dequantizer, scale)
        one.node.replace_input_with(1, again[dequantizer])
        result = _behind(model, one.node, "Mul", ratios[stored])
        bias = one.node.inputs[2] if len(one.node.inputs) > 2 else None
        if bias is not None:
            one.node.resize_inputs(2)
            _behind(model, result, "Add", bias)
    for one in group:
        if one.dequantizer.graph is not None and not one.dequantizer.outputs[0].uses():
            model.graph.remove(one.dequantizer, safe=True)
    for one in group:
        if not one.scales.uses():
            model.graph.initializers.pop(str(one.scales.name), None)


def _ratios(model: ir.Model, shared: SharedScale, weight: ObservedWeight) -> ir.Value:
    size = (len(weight.scales),)
    value = _initializer(model, f"{weight.name}_ratios", size, lambda: shared.ratios(weight))
    value.meta[_RATIO] = True
    return value


def _initializer(
    model: ir.Model, name: str, shape: tuple[int, ...], numbers: Callable[[], NDArray[np.float32]]
) -> ir.Value:
    """Numbers in float32 that are made when they are read."""
    tensor = ir.LazyTensor(
        lambda: ir.Tensor(numbers(), name=name),
        dtype=ir.DataType.FLOAT,
        shape=ir.Shape(shape),
        name=name,
    )
    kind = ir.TensorType(ir.DataType.FLOAT)
    value = ir.Value(name=name, shape=ir.Shape(shape), type=kind, const_value=tensor)
    model.graph.register_initializer(value)
    return value


def _dequantized(model: ir.Model, dequantizer: ir.Node, scale: ir.Value) -> ir.Value:
    """A stored weight by the shared scale; its zero points, all zero, are written later."""
    value = dequantizer.outputs[0]
    result = ir.Value(shape=value.shape, type=value.type)
    node = ir.node("DequantizeLinear", [dequantizer.inputs[0], scale], outputs=[result])
    node.metadata_props.update(dequantizer.metadata_props)
    model.graph.insert_before(dequantizer, node)
    return result


def _behind(model: ir.Model, node: ir.Node, kind: str, constant: ir.Value) -> ir.Node:
    """Puts an operator with a constant between a node and all that reads it."""
    value = node.outputs[0]
    result = ir.Value(shape=value.shape, type=value.type)
    made = ir.node(kind, [value, constant], outputs=[result])
    made.metadata_props.update(node.metadata_props)
    if value.is_graph_output():
        result.name, value.name = value.name, None
    value.replace_all_uses_with(result, replace_graph_outputs=True)
    made.replace_input_with(0, value)
    model.graph.insert_after(node, made)
    return made
