"""Quantizers around operations in a lowered model: what ONNX Runtime's fusions look for."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qdx.backends.onnx.dequantizers import (
    EIGHT_BITS,
    block_of,
    dequantized_activation,
    stored_weight,
)

__all__ = [
    "add_node",
    "axis_of",
    "block_of",
    "computed_initializer",
    "constant",
    "dequantized_activation",
    "dequantized_weight",
    "only_consumer",
    "shape_of",
    "stored_weight",
]


def dequantized_weight(value: ir.Value | None) -> ir.Node | None:
    """The DequantizeLinear of an eight-bit weight with a scale for the tensor or for each channel."""
    node = stored_weight(value)
    stored = node.inputs[0] if node is not None else None
    if node is None or stored is None or stored.dtype not in EIGHT_BITS or block_of(node):
        return None
    return node


def axis_of(dequantize: ir.Node) -> int:
    """The dimension along which the scales lie; 1 where the node does not say."""
    found = dequantize.attributes.get("axis")
    return 1 if found is None else found.as_int()


def only_consumer(value: ir.Value, kind: str) -> ir.Node | None:
    """The one node that reads a value, if it is of that kind and the value is no output."""
    users = [use.node for use in value.uses()]
    if len(users) != 1 or users[0].op_type != kind or value.is_graph_output():
        return None
    return users[0]


def add_node(
    before: ir.Node,
    kind: str,
    inputs: Sequence[ir.Value | None],
    attributes: Mapping[str, Any] | None = None,
    *,
    shape: ir.Shape | Sequence[int | str | ir.SymbolicDim | None] | None,
    dtype: ir.DataType | None,
    like: ir.Node | None = None,
) -> ir.Value:
    """Adds a node before another one, named after the module of `like`; returns its output."""
    output = ir.Value(
        shape=None if shape is None else ir.Shape(shape),
        type=None if dtype is None else ir.TensorType(dtype),
    )
    node = ir.node(kind, inputs, attributes, outputs=[output])
    node.metadata_props.update((like or before).metadata_props)
    graph = before.graph
    assert isinstance(graph, ir.Graph)
    graph.insert_before(before, node)
    return output


def constant(graph: ir.Graph, numbers: Sequence[int]) -> ir.Value:
    """An int64 initializer; the lowering numbers those."""
    array = np.asarray(numbers, dtype=np.int64)
    names = (f"shape_{index}" for index in itertools.count(len(graph.initializers)))
    name = next(name for name in names if name not in graph.initializers)
    value = ir.Value(
        name=name,
        shape=ir.Shape(array.shape),
        type=ir.TensorType(ir.DataType.INT64),
        const_value=ir.tensor(array, name=name),
    )
    graph.register_initializer(value)
    return value


def computed_initializer(
    graph: ir.Graph,
    name: str,
    read: Callable[[], NDArray[Any]],
    dtype: ir.DataType,
    shape: Sequence[int],
) -> ir.Value:
    """An initializer that is computed when it is written; its name is numbered if it is taken."""
    names = itertools.chain([name], (f"{name}_{index}" for index in itertools.count(2)))
    free = next(candidate for candidate in names if candidate not in graph.initializers)

    def tensor() -> ir.TensorProtocol:
        return ir.tensor(np.ascontiguousarray(read()), dtype=dtype, name=free)

    value = ir.Value(
        name=free,
        shape=ir.Shape(shape),
        type=ir.TensorType(dtype),
        const_value=ir.LazyTensor(tensor, dtype=dtype, shape=ir.Shape(shape), name=free),
    )
    graph.register_initializer(value)
    return value


def shape_of(before: ir.Node, value: ir.Value, leading: int, last: int) -> ir.Value:
    """The first `leading` sizes of a value and then `last`, as a tensor; a constant where they are known."""
    assert isinstance(before.graph, ir.Graph)
    assert value.shape is not None
    sizes = list(value.shape)[:leading]
    if all(isinstance(size, int) for size in sizes):
        return constant(before.graph, [*(int(size) for size in sizes), last])  # type: ignore[arg-type]
    known = add_node(
        before,
        "Shape",
        [value],
        {"start": 0, "end": leading},
        shape=[leading],
        dtype=ir.DataType.INT64,
    )
    tail = constant(before.graph, [last])
    return add_node(
        before, "Concat", [known, tail], {"axis": 0}, shape=[leading + 1], dtype=ir.DataType.INT64
    )
