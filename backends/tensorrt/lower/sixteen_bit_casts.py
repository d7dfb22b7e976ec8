"""A float32 ONNX model typed in sixteen bits, every cast written out: strongly typed networks convert nothing themselves.

Computed in float32 whatever the plan says: what the graph's own analysis keeps
(`qdx.exporter.graph.analysis.precision`), and of this runtime

- what reads 4-bit floats back: the scale of the tensor is smaller than float16's numbers;
- products of activations in 8-bit floats: their fused kernel adds up in float32, and is known by these casts;
- what reads a constant beyond the type;
- a picture that is resized where the rest is in bfloat16, which TensorRT does not resize.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import Any, Final

import ml_dtypes
import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from onnx_ir.tensor_adapters import TorchTensor

from qdx.backends.onnx.origin import origins
from qdx.backends.onnx.weights import narrowed
from qdx.backends.tensorrt.operators import FP4_QUANTIZE
from qdx.exporter.errors import InternalError
from qdx.exporter.graph.analysis.constants import holds_infinity, is_beyond, masking

__all__ = ["type_model"]

_FLOAT: Final = ir.DataType.FLOAT
_TORCH: Final = {ir.DataType.FLOAT16: torch.float16, ir.DataType.BFLOAT16: torch.bfloat16}
_NUMPY: Final = {ir.DataType.FLOAT16: np.float16, ir.DataType.BFLOAT16: ml_dtypes.bfloat16}
_TURN: Final = "Transpose"
"""Of a weight in 4-bit floats: as wide as what it turns."""
_BOUNDS: Final = frozenset({"Clip", "Max", "Min"})
_FLOAT32_PORTS: Final = {"Resize": (1, 2), FP4_QUANTIZE: (1,)}
"""Inputs that the operators declare as float32."""


def type_model(model: ir.Model, half: ir.DataType, float32: AbstractSet[str]) -> None:
    """Types a model in place; inputs and outputs keep their types behind casts.

    Args:
        model: Computes in float32; its weights are bound, its values named and the origins of its nodes known.
        half: FLOAT16 or BFLOAT16.
        float32: Names of the graph's nodes that compute in float32.

    Raises:
        InternalError: The type of a value is not known.
        TargetRefusal: A weight does not fit float16; when it is read.
    """
    _Typing(model, half, float32).run()


class _Typing:
    """One model under work; a value is cast to a type once."""

    def __init__(self, model: ir.Model, half: ir.DataType, float32: AbstractSet[str]) -> None:
        self._model = model
        self._half = half
        kept = {id(node) for node in model.graph if not float32.isdisjoint(origins(node))}
        kept |= {id(node) for node in _float32_nodes(model, half)}
        self._kept = kept | _adapting(model, kept)
        self._casts: dict[tuple[int, ir.DataType], ir.Value] = {}

    def run(self) -> None:
        nodes = list(self._model.graph)
        self._narrow_initializers()
        for node in nodes:
            self._type_node(node)
        for index, value in enumerate(self._model.graph.outputs):
            if value.dtype == self._half:
                self._model.graph.outputs[index] = self._output(value)

    def _type_node(self, node: ir.Node) -> None:
        wanted = _FLOAT if id(node) in self._kept else self._half
        fixed = _FLOAT32_PORTS.get(node.op_type, ())
        for index, value in enumerate(node.inputs):
            if value is None or value.dtype not in {_FLOAT, self._half}:
                continue
            own = _FLOAT if index in fixed else wanted
            if value.dtype != own:
                node.replace_input_with(index, self._cast(value, own, before=node))
        if wanted == self._half:
            self._narrow_attributes(node)
        for value in node.outputs:
            if value.dtype is None and value.uses():
                raise InternalError(f"`{node.name}`: the type of its output is not known")
            if value.dtype == _FLOAT:
                value.dtype = wanted

    def _narrow_attributes(self, node: ir.Node) -> None:
        for name in ("to", "output_dtype"):
            asked = node.attributes.get(name)
            if asked is not None and asked.as_int() == _FLOAT:
                node.attributes[name] = ir.AttrInt64(name, self._half)
        filled = node.attributes.get("value") if node.op_type == "ConstantOfShape" else None
        if filled is not None and filled.as_tensor().dtype == _FLOAT:
            tensor = self._narrow_array(self._masking(filled.as_tensor()))
            node.attributes["value"] = ir.AttrTensor("value", tensor)

    def _narrow_initializers(self) -> None:
        """Stores in sixteen bits what only nodes in sixteen bits read; what masks is finite in them."""
        for value in self._model.graph.initializers.values():
            if value.dtype != _FLOAT:
                continue
            readers = [self._reads_half(use.node, use.idx) for use in value.uses()]
            tensor = value.const_value
            if tensor is not None and any(readers) and _masks(value, self._half):
                value.const_value = tensor = ir.Tensor(self._masking(tensor), name=value.name)
            if not all(readers):
                continue
            if isinstance(tensor, ir.LazyTensor):
                value.const_value = self._narrow_lazily(tensor)
            elif tensor is not None:
                value.const_value = self._narrow_array(tensor.numpy(), value.name)
            value.dtype = self._half

    def _reads_half(self, node: ir.Node, index: int) -> bool:
        return id(node) not in self._kept and index not in _FLOAT32_PORTS.get(node.op_type, ())

    def _narrow_lazily(self, tensor: ir.LazyTensor) -> ir.LazyTensor:
        name, half = tensor.name or "", self._half

        def read() -> ir.TensorProtocol:
            wide = torch.from_numpy(np.array(tensor.numpy()))
            return TorchTensor(narrowed(name, wide, _TORCH[half]), name=name)

        return ir.LazyTensor(read, dtype=half, shape=ir.Shape(tensor.shape), name=name)

    def _masking(self, tensor: ir.TensorProtocol) -> NDArray[Any]:
        return masking(tensor.numpy(), self._half.name.lower())

    def _narrow_array(self, values: NDArray[Any], name: str | None = None) -> ir.TensorProtocol:
        """A constant; a bound beyond the type becomes the type's own."""
        limit = torch.finfo(_TORCH[self._half]).max
        finite = np.where(np.isfinite(values), np.clip(values, -limit, limit), values)
        return ir.Tensor(finite.astype(_NUMPY[self._half]), dtype=self._half, name=name)

    def _cast(self, value: ir.Value, dtype: ir.DataType, *, before: ir.Node) -> ir.Value:
        key = (id(value), dtype)
        if key not in self._casts:
            node = _cast_node(value, dtype)
            producer = value.producer()
            if producer is None:
                first = next(iter(self._model.graph), before)
                self._model.graph.insert_before(first, node)
            else:
                self._model.graph.insert_after(producer, node)
            self._casts[key] = node.outputs[0]
        return self._casts[key]

    def _output(self, value: ir.Value) -> ir.Value:
        """The output under its name in float32; what computes it gets another name."""
        name = value.name
        value.name = f"{name}/{self._half.name.lower()}"
        node = _cast_node(value, _FLOAT)
        node.outputs[0].name = name
        self._model.graph.append(node)
        return node.outputs[0]


def _cast_node(value: ir.Value, dtype: ir.DataType) -> ir.Node:
    name = f"{value.name}/Cast_{dtype.name.lower()}"
    node = ir.node("Cast", [value], {"to": dtype}, name=name)
    result = node.outputs[0]
    result.name, result.shape, result.dtype = name, value.shape, dtype
    return node


def _adapting(model: ir.Model, kept: AbstractSet[int]) -> set[int]:
    """Ids of the nodes that adapt an input, and come from no node of the graph, where what reads it is kept or counts."""
    found: set[int] = set()
    for node in reversed(model.graph):
        if origins(node):
            continue
        counts = any(value.dtype is not None and value.dtype.is_integer() for value in node.outputs)
        readers = (id(use.node) for value in node.outputs for use in value.uses())
        if counts or any(reader in kept or reader in found for reader in readers):
            found.add(id(node))
    return found


def _float32_nodes(model: ir.Model, half: ir.DataType) -> Iterator[ir.Node]:
    """What this runtime computes in float32."""
    for node in model.graph:
        if (node.op_type == "Resize" and half == ir.DataType.BFLOAT16) or (
            node.op_type == "MatMul" and all(map(_is_float8_activation, node.inputs))
        ):
            yield node
        elif node.op_type == "DequantizeLinear" and _in_float4(node):
            yield node
            yield from (use.node for use in node.outputs[0].uses() if use.node.op_type == _TURN)
            scales = None if node.inputs[1] is None else node.inputs[1].producer()
            if scales is not None:
                yield scales
        elif node.op_type not in _BOUNDS and any(_is_beyond(value, half) for value in node.inputs):
            yield node


def _known(value: ir.Value | None) -> NDArray[Any] | None:
    """The numbers of a float32 constant; None for other values, and for weights, which are checked when they are read."""
    tensor = None if value is None or value.dtype != _FLOAT else value.const_value
    return None if tensor is None or isinstance(tensor, ir.LazyTensor) else tensor.numpy()


def _is_beyond(value: ir.Value | None, half: ir.DataType) -> bool:
    numbers = _known(value)
    return numbers is not None and is_beyond(numbers, half.name.lower())


def _masks(value: ir.Value, half: ir.DataType) -> bool:
    """Whether a constant stands for infinity, and bounds nothing."""
    numbers = _known(value)
    bounds = any(use.node.op_type in _BOUNDS for use in value.uses())
    return numbers is not None and not bounds and holds_infinity(numbers, half.name.lower())


def _in_float4(node: ir.Node) -> bool:
    return node.inputs[0] is not None and node.inputs[0].dtype == ir.DataType.FLOAT4E2M1


def _is_float8_activation(value: ir.Value | None) -> bool:
    """Whether a value is an activation, dequantized from 8-bit floats."""
    node = None if value is None else value.producer()
    if node is None or node.op_type != "DequantizeLinear":
        return False
    data = node.inputs[0]
    return data is not None and data.dtype == ir.DataType.FLOAT8E4M3FN and not data.is_initializer()
