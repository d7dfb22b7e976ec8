"""Converters of operators: ours, which coremltools cannot know, and those of ATen that it gets wrong."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from coremltools.converters.mil.frontend.torch.ops import _get_inputs, _get_kwinputs
from coremltools.converters.mil.frontend.torch.torch_op_registry import register_torch_op
from coremltools.converters.mil.mil import Builder as mb  # noqa: N813  # its name in every converter
from coremltools.converters.mil.mil import types

from qdx.backends.coreml.compressed import affine, palette

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
    (x,) = _get_inputs(context, node, expected=1)
    approximate = _get_kwinputs(context, node, "approximate", default=["none"])[0]
    mode = {"none": "EXACT", "tanh": "TANH_APPROXIMATION"}[approximate]
    context.add(mb.gelu(x=x, mode=mode, name=node.name))
