"""Sums of 8-bit products that an engine keeps in float16: the fault that only a compiled product shows."""

from __future__ import annotations

import re
from math import prod
from typing import TYPE_CHECKING, Final

from qdx.backends.tensorrt.engine.layer_index import dequantizer_of
from qdx.backends.tensorrt.engine.ways import NARROW, narrow_type

if TYPE_CHECKING:
    from qdx.backends.tensorrt.engine.layer_index import Layers
    from qdx.backends.tensorrt.engine.layer_log import LoggedLayer, LoggedTensor
    from qdx.backends.tensorrt.lint.products import Operand

__all__ = ["overflows"]

_HALF: Final = "float16"
_RAW: Final = frozenset({"int8", "float8_e4m3fn"})
"""Types of factors whose sums are scaled behind them; NVFP4 has a scale in its product."""
_PROGRAM: Final = re.compile(r"_myl([0-9]+)_[0-9]+$")


def overflows(layer: LoggedLayer, factors: tuple[Operand, Operand], layers: Layers) -> bool:
    """Whether a layer writes the raw sum of 8-bit products as float16, which a later layer multiplies by the scales.

    The sum passes 65504, the greatest float16, after five products of 127 times 127, and after one of 448 times 448. It
    is so where the weight has one scale for each output: these are no factor of the product itself, whose own factor is
    one number, and the weight's DequantizeLinear stands in a later layer too. With one scale for all of the weight, that
    number holds it, and multiplies in float32.

    Args:
        layer: It multiplies.
        factors: What the file has it multiply.
        layers: All of the log.
    """
    if layer.kind != "gemm" or all(one.dtype != _HALF for one in layer.outputs):
        return False
    if narrow_type([*layer.inputs, *layer.constants]) not in _RAW or not narrow_type(layer.inputs):
        return False
    weights = [one for one in factors if one.constant and _scales(one) != 1]
    if not weights:
        return False
    return not _scaled(layer) or any(
        other.kind == "kgen" and other.line > layer.line and _program(other) == _program(layer)
        for one in weights
        for other in layers.get(dequantizer_of(one))
    )


def _scaled(layer: LoggedLayer) -> bool:
    """Whether a product has more than one number of floats to multiply by."""
    return any(one.dtype not in NARROW and _numbers(one) != 1 for one in layer.constants)


def _numbers(tensor: LoggedTensor) -> int:
    return prod(int(size) for size in re.findall(r"-?[0-9]+", tensor.dimensions))


def _scales(one: Operand) -> int | None:
    """How many scales dequantize an operand; None where the file does not say."""
    scale = None if one.dequantizer is None else one.dequantizer.inputs[1]
    shape = None if scale is None else scale.shape
    if shape is None or any(not isinstance(size, int) for size in shape):
        return None
    return prod(size for size in shape if isinstance(size, int))


def _program(layer: LoggedLayer) -> str:
    """The program that a layer is of: profiles have one each."""
    found = _PROGRAM.search(layer.name)
    return found[1] if found is not None else ""
