"""A model in bfloat16 in a form that ONNX Runtime executes: computed in float32, rounded behind each operation.

ONNX Runtime's processor kernels know bfloat16 in casts alone. So each operation gets its inputs in float32 and its result
is cast to bfloat16 and back, which is what a kernel that adds up in float32 gives. Stored numbers stay as they are in the
file.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx
from onnx import AttributeProto, NodeProto, TensorProto, helper, numpy_helper

__all__ = ["has_bfloat16", "round_behind_operations"]

_ROUNDED: Final = TensorProto.BFLOAT16
_WIDE: Final = TensorProto.FLOAT
_TYPES: Final = frozenset({"to", "output_dtype"})


def has_bfloat16(model: onnx.ModelProto) -> bool:
    """Whether a model computes in bfloat16."""
    return bool(_values(model))


def round_behind_operations(model: onnx.ModelProto) -> None:
    """Computes what is in bfloat16 in float32 and rounds it, in place.

    Args:
        model: With the types of all its values; its external data is not loaded, and not changed.
    """
    graph, rounded = model.graph, _values(model)
    stored = [each.name for each in graph.initializer if each.data_type == _ROUNDED]
    wide = {name: f"{name}/float32" for name in stored}
    nodes = [_cast(name, wide[name], _WIDE) for name in stored]
    for node in graph.node:
        node.input[:] = [wide.get(name, name) for name in node.input]
        for attribute in node.attribute:
            _widen(attribute)
        nodes.append(node)
        for index, name in enumerate(node.output):
            if name in rounded:
                node.output[index] = f"{name}/exact"
                nodes.append(_cast(node.output[index], f"{name}/rounded", _ROUNDED))
                nodes.append(_cast(f"{name}/rounded", name, _WIDE))
    del graph.node[:]
    graph.node.extend(nodes)
    for value in graph.value_info:
        if value.name in rounded:
            value.type.tensor_type.elem_type = _WIDE


def _values(model: onnx.ModelProto) -> frozenset[str]:
    """Names of the values in bfloat16 that operations compute."""
    typed = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    made = [name for node in model.graph.node for name in node.output]
    return frozenset(name for name in made if typed.get(name) == _ROUNDED)


def _cast(source: str, result: str, kind: int) -> NodeProto:
    return helper.make_node("Cast", [source], [result], name=f"{result}/Cast", to=kind)


def _widen(attribute: AttributeProto) -> None:
    """What gave bfloat16 gives float32; the rounding follows."""
    if attribute.name in _TYPES and attribute.i == _ROUNDED:
        attribute.i = _WIDE
    elif attribute.type == AttributeProto.TENSOR and attribute.t.data_type == _ROUNDED:
        values = numpy_helper.to_array(attribute.t).astype(np.float32)
        attribute.t.CopyFrom(numpy_helper.from_array(values, attribute.t.name))
