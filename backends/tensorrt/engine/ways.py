"""In which way one product was compiled: by the kinds of the layers that compute it and the types that these read.

What stands here was found by building engines of known files for every compute capability; the builder's log is the
only source, so that the words are "compiled for", never "executed as": kernels are chosen on the device.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from qdx.backends.tensorrt.engine.inspect import NARROWEST

if TYPE_CHECKING:
    from qdx.backends.contract import Way
    from qdx.backends.tensorrt.engine.layer_log import LoggedLayer, LoggedTensor

__all__ = [
    "KNOWN_KINDS",
    "NARROW",
    "computing",
    "float_type",
    "is_attention_kernel",
    "narrow_type",
    "way_of",
    "worst",
]

_PRODUCTS: Final = frozenset({"gemm", "correlation", "deconv"})
"""Matrix products and convolutions of their own, whose kernel multiplies what it reads as it is."""
_FUSION: Final = "runtime_fusion"
"""A product with its neighbours, compiled on the device: there, weights are dequantized inside."""
_GENERATED: Final = "kgen"
"""Generated code: pointwise operations, norms, attention, and products of one row or one column."""
_OTHERS: Final = frozenset(
    {"avgpool", "cast", "maxpool", "reshape", "runtime_function", "shape_call", "signal", "wait"}
)
KNOWN_KINDS: Final = _PRODUCTS | {_FUSION, _GENERATED} | _OTHERS
"""Kinds of layers whose meaning is known. One that is not here is an error, never taken for a float operation."""
NARROW: Final = frozenset({"float4_e2m1fn", "int4", "float8_e4m3fn", "int8"})
_ATTENTION: Final = "_gemm_mha_"
_ORDER: Final[tuple[Way, ...]] = ("native", "weights_in_product", "weights_in_memory", "float")


def is_attention_kernel(layer: LoggedLayer) -> bool:
    """Whether a layer is both products of an attention and the softmax between them."""
    return layer.kind == _GENERATED and layer.tactic.startswith(_ATTENTION)


def computing(layers: Sequence[LoggedLayer]) -> tuple[LoggedLayer, ...]:
    """Of the layers that name a product, those that multiply.

    Generated code around a product names it too: it moves and pads what the product reads, or scales its result. It
    multiplies only where nothing else does.
    """
    multiply = tuple(one for one in layers if one.kind in _PRODUCTS or one.kind == _FUSION)
    return multiply or tuple(one for one in layers if one.kind == _GENERATED)


def way_of(
    layer: LoggedLayer, *, inputs_quantized: bool, weight_quantized: bool, made: bool
) -> Way | None:
    """The way in which a layer computes a quantized product that is no part of a fused attention.

    Args:
        layer: It multiplies.
        inputs_quantized: Whether the file quantizes everything that the product multiplies.
        weight_quantized: Whether it quantizes its weight.
        made: Whether another layer makes that weight of stored numbers, dequantized.

    Returns:
        The way; None where what the layer reads has no meaning that is known.
    """
    constants = [one.dtype for one in layer.constants if one.dtype in NARROW]
    read = [one.dtype for one in layer.inputs if one.dtype in NARROW]
    if not constants and not read:
        return "weights_in_memory" if weight_quantized and made else "float"
    if inputs_quantized and layer.kind in _PRODUCTS:
        narrowest = narrow_type([*layer.inputs, *layer.constants])
        if narrowest in read and [*read, *constants].count(narrowest) > 1:
            return "native"
    if weight_quantized and not read:
        return "weights_in_product"
    # A weight that another layer has only turned or padded is no constant of this one.
    if weight_quantized and not inputs_quantized and not constants:
        return "weights_in_product"
    return None


def narrow_type(tensors: Iterable[LoggedTensor]) -> str | None:
    """The narrowest type of tensors if it is one of quantized numbers; None where none of them is quantized."""
    found = {one.dtype for one in tensors}
    return next((kind for kind in NARROWEST if kind in found and kind in NARROW), None)


def float_type(layer: LoggedLayer) -> str:
    """The type of the floats that a layer reads; `unknown` where it reads none."""
    found = {one.dtype for one in layer.inputs} or {one.dtype for one in layer.constants}
    return next((kind for kind in NARROWEST if kind in found and kind not in NARROW), "unknown")


def worst(ways: Iterable[Way]) -> Way:
    """Of the ways of one product in the programs of several profiles, the one that is furthest from native."""
    return max(ways, key=_ORDER.index)
