"""ONNX forms of the ATen operators whose form decides speed, names or compatibility.

Everything else is translated by torch's own exporter. The forms were chosen by measurement, see
`benchmarks/README.md`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import ArrayLike
from onnxscript.values import Opset

from qdx.backends.onnx.quantization import quantization_table

aten = torch.ops.aten

# A value of the graph under construction: an `onnx_ir.Value` that onnxscript can compute with.
Value = Any


@dataclass(frozen=True)
class Forms:
    """What a runtime wants its operators to look like.

    Attributes:
        opset: Version of the standard operator set.
        group_norm_operator: GroupNormalization as one operator, instead of InstanceNormalization
            over the groups followed by the affine part.
        translations: Of operators that this runtime alone has a form for.
    """

    opset: int = 21
    group_norm_operator: bool = False
    translations: Mapping[Callable[..., Any], Callable[..., Any]] = field(
        default_factory=lambda: MappingProxyType({})
    )


def translation_table(forms: Forms) -> dict[Callable[..., Any], Callable[..., Any]]:
    """The table for `torch.onnx.export(custom_translation_table=...)`."""
    op = Opset("", forms.opset)
    return {
        **_linear_table(op),
        **_attention_table(op),
        **_norm_table(op, forms),
        **_activation_table(op),
        **_split_table(op),
        **_identity_table(op),
        **quantization_table(op),
        **forms.translations,
    }


def _constant(op: Opset, value: ArrayLike, dtype: type[np.generic]) -> Value:
    return op.Constant(value=ir.tensor(np.asarray(value, dtype=dtype)))


def _ints(op: Opset, values: Sequence[int]) -> Value:
    return _constant(op, values, np.int64)


def _linear_table(op: Opset) -> dict[Callable[..., Any], Callable[..., Any]]:
    def linear(input: Value, weight: Value, bias: Value = None) -> Value:  # noqa: A002  # ATen's name
        if len(input.shape) == 2:  # Gemm is for matrices
            return op.Gemm(input, weight, bias, transB=1)
        # The transpose is folded into the stored weight by `backends.onnx.weights`.
        product = op.MatMul(input, op.Transpose(weight, perm=[1, 0]))
        return product if bias is None else op.Add(product, bias)

    return {aten.linear.default: linear}


def _attention_table(op: Opset) -> dict[Callable[..., Any], Callable[..., Any]]:
    def attention(
        query: Value,
        key: Value,
        value: Value,
        attn_mask: Value = None,
        dropout_p: float = 0.0,  # noqa: ARG001  # inference
        is_causal: bool = False,  # noqa: FBT001, FBT002  # ATen's signature
        scale: float | None = None,
        enable_gqa: bool = False,  # noqa: FBT001, FBT002
    ) -> Value:
        if enable_gqa and query.shape[1] != key.shape[1]:
            key, value = (_repeat_heads(op, x, query.shape[1] // x.shape[1]) for x in (key, value))
        factor = 1.0 / math.sqrt(query.shape[-1]) if scale is None else scale
        scaled = op.Mul(query, _constant(op, factor, np.float32))
        rank = len(key.shape)
        swapped = [*range(rank - 2), rank - 1, rank - 2]
        scores = op.MatMul(scaled, op.Transpose(key, perm=swapped))
        if is_causal:
            scores = op.Add(scores, _causal_mask(op, query, key))
        if attn_mask is not None:
            scores = op.Add(scores, _additive_mask(op, attn_mask))
        return op.MatMul(op.Softmax(scores, axis=-1), value)

    return {aten.scaled_dot_product_attention.default: attention}


def _additive_mask(op: Opset, mask: Value) -> Value:
    if mask.dtype != ir.DataType.BOOL:
        return mask
    keep, drop = _constant(op, 0.0, np.float32), _constant(op, -np.inf, np.float32)
    return op.Where(mask, keep, drop)


def _causal_mask(op: Opset, query: Value, key: Value) -> Value:
    rows, columns = query.shape[-2], key.shape[-2]
    if isinstance(rows, int) and isinstance(columns, int):
        hidden = ~np.tri(rows, columns, dtype=bool)
        return _constant(op, np.where(hidden, -np.inf, 0.0), np.float32)
    size = op.Concat(op.Shape(query, start=-2, end=-1), op.Shape(key, start=-2, end=-1), axis=0)
    # Trilu leaves zeros in the lower triangle and on the diagonal.
    hidden = op.Expand(_constant(op, -np.inf, np.float32), size)
    return op.Trilu(hidden, _constant(op, 1, np.int64), upper=1)


def _repeat_heads(op: Opset, x: Value, times: int) -> Value:
    indices = np.repeat(np.arange(x.shape[1]), times)
    repeated = op.Gather(x, _ints(op, indices.tolist()), axis=1)
    repeated.shape = ir.Shape([x.shape[0], len(indices), *x.shape[2:]])
    return repeated


def _norm_table(op: Opset, forms: Forms) -> dict[Callable[..., Any], Callable[..., Any]]:
    def group_norm(
        input: Value,  # noqa: A002
        num_groups: int,
        weight: Value = None,
        bias: Value = None,
        eps: float = 1e-5,
        cudnn_enabled: bool = True,  # noqa: ARG001, FBT001, FBT002
    ) -> Value:
        channels, rank = input.shape[1], len(input.shape)
        if forms.group_norm_operator:
            scale = _constant(op, np.ones(channels), np.float32) if weight is None else weight
            shift = _constant(op, np.zeros(channels), np.float32) if bias is None else bias
            return op.GroupNormalization(input, scale, shift, epsilon=eps, num_groups=num_groups)
        ones, zeros = np.ones(num_groups), np.zeros(num_groups)
        grouped = op.Reshape(input, _ints(op, [0, num_groups, -1]))
        normal = op.InstanceNormalization(
            grouped,
            _constant(op, ones, np.float32),
            _constant(op, zeros, np.float32),
            epsilon=eps,
        )
        result = op.Reshape(normal, _same_shape(op, input))
        per_channel = _ints(op, [channels, *[1] * (rank - 2)])
        if weight is not None:
            result = op.Mul(result, op.Reshape(weight, per_channel))
        return result if bias is None else op.Add(result, op.Reshape(bias, per_channel))

    def rms_norm(
        input: Value,  # noqa: A002
        normalized_shape: Sequence[int],
        weight: Value = None,
        eps: float | None = None,
    ) -> Value:
        axes = _ints(op, range(-len(normalized_shape), 0))
        epsilon = float(torch.finfo(torch.float32).eps) if eps is None else eps
        mean = op.ReduceMean(op.Mul(input, input), axes, keepdims=1)
        spread = op.Sqrt(op.Add(mean, _constant(op, epsilon, np.float32)))
        result = op.Div(input, spread)
        return result if weight is None else op.Mul(result, weight)

    return {aten.group_norm.default: group_norm, aten.rms_norm.default: rms_norm}


def _same_shape(op: Opset, x: Value) -> Value:
    if all(isinstance(size, int) for size in x.shape):
        return _ints(op, list(x.shape))
    return op.Shape(x)


def _activation_table(op: Opset) -> dict[Callable[..., Any], Callable[..., Any]]:
    def silu(self: Value) -> Value:
        return op.Mul(self, op.Sigmoid(self))

    return {aten.silu.default: silu}


def _split_table(op: Opset) -> dict[Callable[..., Any], Callable[..., Any]]:
    def sections(x: Value, sizes: Sequence[int], dim: int) -> Value:
        axis = dim % len(x.shape)
        if len(sizes) == 1:
            return (op.Identity(x),)
        if not all(isinstance(size, int) for size in sizes):
            return _slices(op, x, sizes, axis)
        if len(set(sizes)) == 1:
            return op.Split(x, axis=axis, num_outputs=len(sizes))
        starts = np.cumsum([0, *sizes]).tolist()
        return tuple(
            op.Slice(x, _ints(op, [start]), _ints(op, [stop]), _ints(op, [axis]))
            for start, stop in pairwise(starts)
        )

    def chunk(self: Value, chunks: int, dim: int = 0) -> Value:
        total = self.shape[dim]
        size = -(-total // chunks)
        return sections(self, [min(size, total - start) for start in range(0, total, size)], dim)

    def split(self: Value, split_size: int, dim: int = 0) -> Value:
        total = self.shape[dim]
        return sections(
            self, [min(split_size, total - s) for s in range(0, total, split_size)], dim
        )

    def split_with_sizes(self: Value, split_sizes: Sequence[int], dim: int = 0) -> Value:
        return sections(self, list(split_sizes), dim)

    def unbind(self: Value, dim: int = 0) -> Value:
        axis = dim % len(self.shape)
        parts = sections(self, [1] * self.shape[axis], axis)
        return tuple(op.Squeeze(part, _ints(op, [axis])) for part in parts)

    return {
        aten.chunk.default: chunk,
        aten.split.Tensor: split,
        aten.split_with_sizes.default: split_with_sizes,
        aten.unbind.int: unbind,
    }


def _slices(op: Opset, x: Value, sizes: Sequence[Value], axis: int) -> tuple[Value, ...]:
    """Sections whose sizes are known at run time only."""
    start = _ints(op, [0])
    parts = []
    for size in sizes:
        length = _ints(op, [size]) if isinstance(size, int) else op.Reshape(size, _ints(op, [1]))
        stop = op.Add(start, length)
        parts.append(op.Slice(x, start, stop, _ints(op, [axis])))
        start = stop
    return tuple(parts)


def _identity_table(op: Opset) -> dict[Callable[..., Any], Callable[..., Any]]:
    def dropout(input: Value, p: float, train: bool) -> Value:  # noqa: A002, ARG001, FBT001
        return op.Identity(input)

    def squeeze(self: Value, dim: int) -> Value:
        # Squeezing a dimension of another size changes nothing in ATen and is an error in ONNX.
        return op.Squeeze(self, _ints(op, [dim])) if self.shape[dim] == 1 else op.Identity(self)

    return {aten.dropout.default: dropout, aten.squeeze.dim: squeeze}
