"""A quantized linear operation whose result is halved for a gate, as two: a Split would copy the result."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from qdx.backends.onnxruntime.patterns import (
    add_node,
    axis_of,
    computed_initializer,
    dequantized_activation,
    dequantized_weight,
    only_consumer,
    shape_of,
)

__all__ = ["split_gated_linears"]

_BIAS = 2


def split_gated_linears(model: ir.Model) -> None:
    """Splits the weights of such operations, in place.

    Before: `a, b = Split[last](Reshape(Gemm(x, DQ(w), bias)))`.
    After: `a = Reshape(Gemm(x, DQ(w/0), bias/0))`, `b` likewise from `w/1`.
    """
    changed = False
    for split in list(model.graph):
        gemm = _gemm_behind(split) if split.op_type == "Split" else None
        if gemm is not None:
            _split(split, gemm)
            changed = True
    if changed:
        RemoveUnusedNodesPass()(model)


def _gemm_behind(split: ir.Node) -> ir.Node | None:
    value = split.inputs[0]
    reshape = value.producer() if value is not None else None
    product = reshape.inputs[0] if reshape is not None and reshape.op_type == "Reshape" else None
    gemm = product.producer() if product is not None else None
    if gemm is None or product is None or gemm.op_type != "Gemm" or len(gemm.inputs) <= _BIAS:
        return None
    weight = dequantized_weight(gemm.inputs[1])
    if weight is None or dequantized_activation(gemm.inputs[0]) is None:
        return None
    sizes = {value.shape[-1] if value.shape is not None else None for value in split.outputs}
    rank = len(value.shape) if value is not None and value.shape is not None else 0
    alone = (
        only_consumer(product, "Reshape") is reshape
        and value is not None
        and only_consumer(value, "Split") is split
        and not any(output.is_graph_output() for output in split.outputs)
    )
    whole = len(sizes) == 1 and isinstance(next(iter(sizes)), int)
    last = split.attributes.get_int("axis", 0) in {-1, rank - 1}
    plain = axis_of(weight) in {1, -1} and gemm.attributes.get_int("transB", 0) == 0
    return gemm if alone and whole and last and plain else None


def _split(split: ir.Node, gemm: ir.Node) -> None:
    weight = dequantized_weight(gemm.inputs[1])
    assert weight is not None
    parts = len(split.outputs)
    for index, result in enumerate(split.outputs):
        assert result.shape is not None
        columns = result.shape[-1]
        assert isinstance(columns, int)
        values = [_part(gemm, value, index, parts) for value in weight.inputs]
        matrix = add_node(
            gemm,
            "DequantizeLinear",
            values,
            {"axis": 1},
            shape=[None, columns],
            dtype=ir.DataType.FLOAT,
        )
        bias = _part(gemm, gemm.inputs[_BIAS], index, parts)
        product = add_node(
            gemm,
            "Gemm",
            [gemm.inputs[0], matrix, bias],
            shape=[None, columns],
            dtype=ir.DataType.FLOAT,
        )
        rank = len(result.shape)
        sizes = shape_of(split, _sized(split), rank - 1, columns)
        again = add_node(
            split,
            "Reshape",
            [product, sizes],
            shape=result.shape,
            dtype=result.dtype,
            like=gemm,
        )
        result.replace_all_uses_with(again)


def _sized(split: ir.Node) -> ir.Value:
    """A tensor with the result's leading sizes that does not need the whole product."""
    value = split.inputs[0]
    assert value is not None
    reshape = value.producer()
    target = reshape.inputs[1] if reshape is not None else None
    concat = target.producer() if target is not None else None
    known = (
        concat.inputs[0].producer() if concat is not None and concat.inputs[0] is not None else None
    )
    source = known.inputs[0] if known is not None else None
    return value if source is None else source


def _part(gemm: ir.Node, value: ir.Value | None, index: int, parts: int) -> ir.Value | None:
    """A part of an initializer along its last dimension; a scalar stays."""
    if value is None or value.shape is None or len(value.shape) == 0:
        return value
    tensor = value.const_value
    assert tensor is not None
    assert value.dtype is not None
    assert isinstance(gemm.graph, ir.Graph)
    shape = [size for size in value.shape if isinstance(size, int)]
    width = shape[-1] // parts

    def read() -> NDArray[Any]:
        return np.asarray(tensor.numpy())[..., index * width : (index + 1) * width]

    return computed_initializer(
        gemm.graph, f"{value.name}/{index}", read, value.dtype, [*shape[:-1], width]
    )
