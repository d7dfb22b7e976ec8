"""Converters of operators: ours, which coremltools cannot know, and those of ATen that it gets wrong."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from coremltools.converters.mil.frontend.torch.ops import (
    _get_inputs,
    cat,
    promote_input_dtypes,
)
from coremltools.converters.mil.frontend.torch.ops import where as whole_where
from coremltools.converters.mil.frontend.torch.torch_op_registry import register_torch_op
from coremltools.converters.mil.mil import Builder as mb  # noqa: N813  # its name in every converter
from coremltools.converters.mil.mil import types
from coremltools.converters.mil.mil.types.symbolic import any_symbolic

from qdx.backends.coreml.lower.compressed import affine, palette

__all__ = ["register_operators"]


@cache
def register_operators() -> None:
    """Tells coremltools of them, once."""
    for name, converter in {
        "quantize_tensor": _quantize_tensor,
        "dequantize_tensor": _dequantize_tensor,
        "dequantize": _dequantize,
        "lut": _lut,
    }.items():
        register_torch_op(converter, torch_alias=[f"qdx::{name}"])
    register_torch_op(gelu, override=True)
    register_torch_op(group_norm, override=True)
    register_torch_op(rms_norm, override=True)
    register_torch_op(reciprocal, override=True)
    kinds = [
        f"{start}{n}d" for start in ("upsample_nearest", "_upsample_nearest_exact") for n in (2, 3)
    ]
    missing = [f"{kind}.vec" for kind in kinds if kind != "upsample_nearest2d"]
    register_torch_op(_upsample_nearest, torch_alias=missing)
    register_torch_op(where, torch_alias=["where.self", "where.scalarother"], override=True)
    register_torch_op(_concatenate, torch_alias=["concatenate"])


def _quantize_tensor(context: Any, node: Any) -> None:
    """Activations to integers: x, scale, zero point, dtype."""
    source, scale, zero_point, dtype = node.inputs
    context.add(
        mb.quantize(
            input=context[source],
            scale=np.float32(scale),
            zero_point=np.dtype(dtype).type(zero_point),
            output_dtype=dtype,
            name=node.name,
        )
    )


def _dequantize_tensor(context: Any, node: Any) -> None:
    """Activations from integers: q, scale, zero point."""
    source, scale, zero_point = node.inputs
    kind = types.nptype_from_builtin(context[source].dtype)
    context.add(
        mb.dequantize(
            input=context[source],
            scale=np.float32(scale),
            zero_point=kind(zero_point),
            name=node.name,
        )
    )


def _dequantize(context: Any, node: Any) -> None:
    """Weights from integers or from a palette's table of integers: q, scale, zero point, axis, block, dtype."""
    stored, scale, zero_point, axis, _, dtype = node.inputs
    offset = None if zero_point is None else context[zero_point].val
    context.add(affine(context[stored], context[scale].val, offset, axis, dtype, name=node.name))


def _lut(context: Any, node: Any) -> None:
    """Weights from a palette: indices, tables, axis, bits."""
    indices, tables, axis, bits = node.inputs
    context.add(palette(context[indices].val, context[tables].val, axis, bits, name=node.name))


def gelu(context: Any, node: Any) -> None:
    """The approximation is a keyword, which coremltools' own converter does not look at."""
    # Not looked up as a binding is: a tensor may be named like the value.
    ((approximate,), source) = (node.kwinputs or {}).get("approximate", ("none",)), node.inputs[0]
    mode = {"none": "EXACT", "tanh": "TANH_APPROXIMATION"}[approximate]
    context.add(mb.gelu(x=context[source], mode=mode, name=node.name))


def group_norm(context: Any, node: Any) -> None:
    """One norm over each group, as an operation of its own.

    coremltools writes it out in squares and means, which end at 65504 in float16; a norm does not round inside.
    """
    x, groups = _get_inputs(context, node, min_expected=2)[:2]
    weight, bias = _optional(context, node, 2, "weight"), _optional(context, node, 3, "bias")
    epsilon = _optional(context, node, 4, "eps")
    grouped = mb.reshape(x=x, shape=(x.shape[0], int(groups.val), -1))
    least = np.float32(1e-5 if epsilon is None else epsilon)
    normal = mb.layer_norm(x=grouped, axes=[2], epsilon=least)
    result = mb.reshape(x=normal, shape=tuple(x.shape))
    context.add(_by_channel(result, weight, bias), node.name)


def _by_channel(x: Any, weight: Any, bias: Any) -> Any:
    """A factor and a summand for each channel: one operation where there is one for it, which rounds once."""
    known: list[Any] = [getattr(each, "val", None) for each in (weight, bias)]
    if x.rank == 4 and all(value is not None for value in known):
        gamma, beta = (value.astype(np.float32) for value in known)
        zero, one = np.zeros_like(gamma), np.ones_like(gamma)
        return mb.batch_norm(
            x=x, mean=zero, variance=one, gamma=gamma, beta=beta, epsilon=np.float32(0)
        )
    along = (1, x.shape[1], *[1] * (x.rank - 2))
    if weight is not None:
        x = mb.mul(x=x, y=mb.reshape(x=weight, shape=along))
    if bias is not None:
        x = mb.add(x=x, y=mb.reshape(x=bias, shape=along))
    return x


def rms_norm(context: Any, node: Any) -> None:
    """The root of the mean square, over the last dimensions; coremltools asks for a number that may be left out."""
    x, shape = _get_inputs(context, node, min_expected=2)[:2]
    weight, epsilon = _optional(context, node, 2, "weight"), _optional(context, node, 3, "eps")
    least = np.float32(np.finfo(np.float32).eps if epsilon is None else epsilon)
    axes = list(range(-len(np.atleast_1d(shape.val)), 0))
    mean = mb.reduce_mean(x=mb.square(x=x), axes=axes, keep_dims=True)
    result = mb.mul(x=x, y=mb.rsqrt(x=mean, epsilon=least))
    if weight is not None:
        result = mb.mul(x=result, y=weight)
    context.add(result, node.name)


def reciprocal(context: Any, node: Any) -> None:
    """One divided by a value; coremltools' operation adds 1e-4 to it."""
    (x,) = _get_inputs(context, node, expected=1)
    if types.is_int(x.dtype):
        x = mb.cast(x=x, dtype="fp32")
    context.add(mb.real_div(x=np.float32(1), y=x, name=node.name))


def where(context: Any, node: Any) -> None:
    """A choice between a tensor and a number; coremltools writes the number out in the tensor's size, once for each use."""
    inputs = _get_inputs(context, node)
    if len(inputs) == 3 and not any(any_symbolic(value.shape) for value in inputs):
        condition, *values = inputs
        shape = np.broadcast_shapes(*(tuple(value.shape) for value in inputs))
        sizes = sorted(values, key=lambda value: math.prod(value.shape))
        if math.prod(sizes[0].shape) == 1 and tuple(sizes[1].shape) == shape:
            one, other = promote_input_dtypes(values)
            known = (
                condition if types.is_bool(condition.dtype) else mb.cast(x=condition, dtype="bool")
            )
            context.add(mb.select(cond=known, a=one, b=other, name=node.name))
            return
    whole_where(context, node)


def _optional(context: Any, node: Any, position: int, name: str) -> Any:
    """An argument given by position, by name or not at all: a value of the program, or a number."""
    given = node.inputs[position] if position < len(node.inputs) else None
    if name in (node.kwinputs or {}):
        (given,) = node.kwinputs[name]
    return context[given] if isinstance(given, str) else given


def _concatenate(context: Any, node: Any) -> None:
    """An alias of `cat` that decompositions leave."""
    cat(context, node)


def _upsample_nearest(context: Any, node: Any) -> None:
    """Each element repeated along two or three dimensions; with whole factors exact and inexact are the same."""
    x, sizes = context[node.inputs[0]], tuple(node.meta["val"].shape)
    factors = [wanted / size for wanted, size in zip(sizes[2:], x.shape[2:], strict=True)]
    if any(factor != int(factor) for factor in factors):
        raise ValueError(f"nearest neighbours with factors that are not whole: {factors}")
    *depth, height, width = map(float, factors)
    planes = mb.reshape(x=x, shape=(-1, *x.shape[-3:])) if depth else x
    name = None if depth else node.name
    planes = mb.upsample_nearest_neighbor(
        x=planes, scale_factor_height=height, scale_factor_width=width, **_named(name)
    )
    if depth:
        rows = mb.reshape(x=planes, shape=(1, -1, x.shape[2], sizes[3] * sizes[4]))
        rows = mb.upsample_nearest_neighbor(
            x=rows, scale_factor_height=depth[0], scale_factor_width=1.0
        )
        planes = mb.reshape(x=rows, shape=sizes, name=node.name)
    context.add(planes, node.name)


def _named(name: str | None) -> dict[str, str]:
    return {} if name is None else {"name": name}
