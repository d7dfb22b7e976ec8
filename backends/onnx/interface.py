"""The model's face: names, dtypes and ranks of inputs and outputs as the target's ecosystem expects them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from qdx.exporter.errors import InternalError

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.graph import Graph, TensorSpec

_DTYPES = {
    "float32": ir.DataType.FLOAT,
    "float16": ir.DataType.FLOAT16,
    "bfloat16": ir.DataType.BFLOAT16,
    "int64": ir.DataType.INT64,
    "int32": ir.DataType.INT32,
    "bool": ir.DataType.BOOL,
}


def apply_interface(model: ir.Model, graph: Graph) -> None:
    """Gives inputs and outputs the graph's names, dtypes and ranks; where the program differs, adapts.

    A layout may want another dtype or rank than the traced call had (a timestep as rank 0 float or
    as rank 1 int64): a Cast, and for a single number a Reshape or Expand, join the two.

    Raises:
        InternalError: The numbers of tensors differ or a shape cannot be adapted.
    """
    inputs, outputs = list(model.graph.inputs), list(model.graph.outputs)
    if len(inputs) != len(graph.inputs) or len(outputs) != len(graph.outputs):
        raise InternalError(
            f"`{graph.where}`: the program has {len(inputs)} inputs and {len(outputs)} outputs, "
            f"expected {len(graph.inputs)} and {len(graph.outputs)}"
        )
    names = [spec.name for spec in (*graph.inputs, *graph.outputs)]
    if len(set(names)) < len(names):
        raise InternalError(
            f"`{graph.where}`: input and output names are not unique: {', '.join(names)}"
        )
    for index, (value, spec) in enumerate(zip(inputs, graph.inputs, strict=True)):
        model.graph.inputs[index] = _adapt_input(model, value, spec, graph.where)
    named: set[int] = set()
    for index, (value, spec) in enumerate(zip(outputs, graph.outputs, strict=True)):
        model.graph.outputs[index] = _adapt_output(model, value, spec, apart=id(value) in named)
        named.add(id(value))


def _adapt_input(model: ir.Model, value: ir.Value, spec: TensorSpec, where: str) -> ir.Value:
    traced_shape, wanted = value.shape, _DTYPES[spec.dtype]
    assert traced_shape is not None
    shape = ir.Shape(spec.shape)
    if value.dtype == wanted and len(shape) == len(traced_shape):
        value.name, value.shape = spec.name, shape
        return value
    outer = ir.Value(name=spec.name, shape=shape, type=ir.TensorType(wanted))
    chain: list[ir.Node] = []
    current = outer
    if value.dtype != wanted:
        chain.append(ir.node("Cast", [current], {"to": value.dtype}))
        current = chain[-1].outputs[0]
        current.type, current.shape = value.type, shape
    if len(shape) != len(traced_shape):
        chain.append(_resize_rank(model, current, tuple(traced_shape), spec, where))
        current = chain[-1].outputs[0]
    for node in chain:
        node.name = node.outputs[0].name = f"{spec.name}/{node.op_type}"
    current.shape = traced_shape
    current.type = value.type
    value.replace_all_uses_with(current, replace_graph_outputs=True)
    first = next(iter(model.graph), None)
    if first is None:
        model.graph.extend(chain)
    else:
        model.graph.insert_before(first, chain)
    return outer


def _resize_rank(
    model: ir.Model, value: ir.Value, traced: tuple[object, ...], spec: TensorSpec, where: str
) -> ir.Node:
    if any(not isinstance(size, int) for size in traced):
        raise InternalError(
            f"`{where}`: input `{spec.name}` cannot go from rank {len(spec.shape)} to {traced}"
        )
    sizes = np.asarray(traced, dtype=np.int64)
    target = ir.Value(
        name=f"{spec.name}/traced_shape",
        shape=ir.Shape(sizes.shape),
        type=ir.TensorType(ir.DataType.INT64),
        const_value=ir.tensor(sizes, name=f"{spec.name}/traced_shape"),
    )
    model.graph.register_initializer(target)
    return ir.node("Reshape" if len(spec.shape) > len(traced) else "Expand", [value, target])


def _adapt_output(model: ir.Model, value: ir.Value, spec: TensorSpec, *, apart: bool) -> ir.Value:
    """The value with an output's name; a value of its own where it has another name already, of an output say."""
    wanted = _DTYPES[spec.dtype]
    taken = apart or value.is_graph_input() or value.is_initializer()
    if value.dtype == wanted and not taken:
        value.name, value.shape = spec.name, ir.Shape(spec.shape)
        return value
    kind = "Identity" if value.dtype == wanted else "Cast"
    node = ir.node(
        kind, [value], {} if kind == "Identity" else {"to": wanted}, name=f"{spec.name}/{kind}"
    )
    outer = node.outputs[0]
    outer.name, outer.shape, outer.dtype = spec.name, ir.Shape(spec.shape), wanted
    model.graph.append(node)
    return outer
