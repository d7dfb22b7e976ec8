"""A model in sixteen bits in a form that ONNX Runtime executes as its types say: each operation's result is rounded.

ONNX Runtime's processor kernels know bfloat16 in casts alone, and it computes chains of operations in float16 in float32:
what leaves float16 on the way, and comes back, is infinite on a GPU and finite there. So each operation gets its inputs
in float32 and its result is cast to its type and back, which is what a kernel gives that adds up in float32: rounded
once, and infinite beyond the type. Stored numbers stay as they are in the file.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import numpy as np
import onnx
from onnx import AttributeProto, NodeProto, TensorProto, helper, numpy_helper

__all__ = ["has_sixteen_bits", "round_behind_operations"]

_ROUNDED: Final = frozenset({TensorProto.BFLOAT16, TensorProto.FLOAT16})
_WIDE: Final = TensorProto.FLOAT
_TYPES: Final = frozenset({"to", "output_dtype"})
_MOVES: Final = frozenset(
    [
        "Concat",
        "DepthToSpace",
        "Expand",
        "Flatten",
        "Gather",
        "GatherElements",
        "GatherND",
        "Identity",
        "MaxPool",
        "Pad",
        "Reshape",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
        "Where",
    ]
)
"""Operators whose results are some of the numbers that they read, which are rounded already."""


def has_sixteen_bits(model: onnx.ModelProto) -> bool:
    """Whether a model computes in float16 or bfloat16."""
    return bool(_values(model))


def round_behind_operations(model: onnx.ModelProto) -> None:
    """Computes what is in sixteen bits in float32 and rounds it, in place.

    Args:
        model: With the types of all its values; its external data is not loaded, and not changed.
    """
    graph, rounded = model.graph, _values(model)
    given = [value.name for value in graph.input if value.type.tensor_type.elem_type in _ROUNDED]
    given += [each.name for each in graph.initializer if each.data_type in _ROUNDED]
    wide = {name: f"{name}/float32" for name in given}
    nodes = [_cast(name, wide[name], _WIDE) for name in given]
    outputs = {value.name for value in graph.output}
    for node in graph.node:
        exact = _keeps_numbers(node)
        node.input[:] = [wide.get(name, name) for name in node.input]
        for attribute in node.attribute:
            _widen(attribute)
        nodes.append(node)
        for index, name in enumerate(node.output):
            if name in rounded and name in outputs:
                wide[name] = f"{name}/float32"
                node.output[index] = f"{name}/exact"
                nodes.append(_cast(node.output[index], name, rounded[name]))
                nodes.append(_cast(name, wide[name], _WIDE))
            elif name in rounded and not exact:
                node.output[index] = f"{name}/exact"
                nodes.append(_cast(node.output[index], f"{name}/rounded", rounded[name]))
                nodes.append(_cast(f"{name}/rounded", name, _WIDE))
    del graph.node[:]
    graph.node.extend(nodes)
    _retype(graph.value_info, rounded.keys() - outputs)


def _keeps_numbers(node: NodeProto) -> bool:
    """Whether every result of a node is one of the rounded numbers that it reads."""
    return node.op_type in _MOVES and node.domain in {"", "ai.onnx"}


def _retype(values: Collection[onnx.ValueInfoProto], names: Collection[str]) -> None:
    for value in values:
        if value.name in names:
            value.type.tensor_type.elem_type = _WIDE


def _values(model: onnx.ModelProto) -> dict[str, int]:
    """The values in sixteen bits that operations compute, each with its type."""
    graph = model.graph
    typed = {
        value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)
    }
    made = [name for node in graph.node for name in node.output]
    return {name: typed[name] for name in made if typed.get(name) in _ROUNDED}


def _cast(source: str, result: str, kind: int) -> NodeProto:
    return helper.make_node("Cast", [source], [result], name=f"{result}/Cast", to=kind)


def _widen(attribute: AttributeProto) -> None:
    """What gave sixteen bits gives float32; the rounding follows."""
    if attribute.name in _TYPES and attribute.i in _ROUNDED:
        attribute.i = _WIDE
    elif attribute.type == AttributeProto.TENSOR and attribute.t.data_type in _ROUNDED:
        values = numpy_helper.to_array(attribute.t).astype(np.float32)
        attribute.t.CopyFrom(numpy_helper.from_array(values, attribute.t.name))
