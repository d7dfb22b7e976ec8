"""A model in sixteen bits with the same numbers in float32, so that what it says is told apart from how finely it is computed."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import onnx
import torch
from onnx import TensorProto, numpy_helper

__all__ = ["widen"]

_HALVES: Final[dict[int, float]] = {
    TensorProto.FLOAT16: torch.finfo(torch.float16).min,
    TensorProto.BFLOAT16: torch.finfo(torch.bfloat16).min,
}
"""Types of sixteen bits, with the least number of each."""


def widen(model: Path, output: Path) -> None:
    """Writes a model whose every sixteen-bit float is a float32 number.

    Weights, scales and constants keep their rounded values, but for the least number of the type, which becomes the
    least of float32; casts between float types become copies.

    Args:
        model: A model that `qdx.backends.tensorrt.lower.lower` wrote; its weights are read into memory.
        output: The file to write; weights of less than 2 GiB lie in it.
    """
    proto = onnx.load(str(model))
    for tensor in proto.graph.initializer:
        _widen(tensor)
    for node in proto.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i in _HALVES:
                attribute.i = TensorProto.FLOAT
            if attribute.type == onnx.AttributeProto.TENSOR:
                _widen(attribute.t)
    del proto.graph.value_info[:]  # ONNX Runtime infers the types anew
    onnx.save(proto, str(output))


def _widen(tensor: TensorProto) -> None:
    if tensor.data_type in _HALVES:
        half = numpy_helper.to_array(tensor)
        # A mask of the least number hides what it is added to in either type, each by its own number.
        wide = half.astype(np.float32)
        values = np.where(wide == _HALVES[tensor.data_type], np.finfo(np.float32).min, wide)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
