"""Products that TensorRT has no fast kernel for in low precision."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Final

import onnx_ir as ir

from qdx.backends.tensorrt.flavour import RTX
from qdx.backends.tensorrt.lint.findings import DeviceFacts, Fault, name_of
from qdx.backends.tensorrt.lint.products import EIGHT_BITS, Product, operand, products
from qdx.backends.tensorrt.lint.subject import Subject, attribute, sizes_of
from qdx.exporter.dtypes import number_type

__all__ = [
    "computed_kernel",
    "float8_attention",
    "float8_convolution",
    "int8_attention",
    "small_product",
    "softmax_scale",
]

_NARROW: Final = EIGHT_BITS | {ir.DataType.FLOAT4E2M1}
_LEAST_SIZE: Final = 16
_LARGEST_FLOAT8_KERNEL: Final = 32
_FUSED_TOKENS: Final = 512
_LARGEST_HEAD: Final = 256
_INT8_HEADS: Final = (16, 32, 64)
_LEAST_FLOAT8_KEYS: Final = 32
_LARGEST_NUMBERS: Final = {
    ir.DataType.INT8: float(number_type("int8").maximum),
    ir.DataType.FLOAT8E4M3FN: float(number_type("float8_e4m3fn").maximum),
}
_TOLERANCE: Final = 0.01


def small_product(subject: Subject, facts: DeviceFacts) -> Iterator[Fault]:
    """A quantized product has at least 16 inputs and outputs, and more than one row; for TensorRT-RTX any."""
    if facts.flavour is RTX:
        return
    for each in products(subject):
        if each.narrow_type not in _NARROW or not each.weighted:
            continue
        sizes = each.reduced_and_outputs
        if sizes is not None and min(sizes) < _LEAST_SIZE:
            yield Fault(
                name_of(each.node),
                f"{sizes[0]} inputs and {sizes[1]} outputs in {_type(each)}, "
                f"expected at least {_LEAST_SIZE} of each",
                "keep it in float",
            )
        elif not each.convolves and _rows(each) == 1:
            yield Fault(
                name_of(each.node),
                f"one row in {_type(each)}, expected more",
                "keep it in float, as layers of the timestep are",
            )


def computed_kernel(subject: Subject, facts: DeviceFacts) -> Iterator[Fault]:
    """A quantized convolution has a constant kernel."""
    del facts
    for each in products(subject):
        if each.convolves and not each.right.constant and each.right.dequantizer is not None:
            yield Fault(
                name_of(each.node),
                "its kernel is computed, expected a constant",
                "keep it in float",
            )


def float8_convolution(subject: Subject, facts: DeviceFacts) -> Iterator[Fault]:
    """A convolution in FP8 is dense, wider than 16 channels, its kernel of at most 32 numbers.

    For TensorRT-RTX the kernel alone counts.
    """
    for each in products(subject):
        if not each.convolves or each.narrow_type != ir.DataType.FLOAT8E4M3FN:
            continue
        fault = _float8_fault(each, facts)
        if fault is not None:
            yield Fault(name_of(each.node), f"{fault} in FP8", "use int8, or keep it in float")


def int8_attention(subject: Subject, facts: DeviceFacts) -> Iterator[Fault]:
    """Products of attention in int8 have at most 512 tokens and heads of 16, 32 or 64; others have no fused kernel.

    For TensorRT-RTX any number of queries will do.
    """
    for each in products(subject):
        if each.weighted or each.convolves or each.narrow_type != ir.DataType.INT8:
            continue
        softmax, _ = _softmax_behind(each.node)
        head = _head(each) if softmax is not None else None
        if head is not None and head not in _INT8_HEADS:
            yield Fault(
                name_of(each.node),
                f"heads of {head} in int8, expected {', '.join(map(str, _INT8_HEADS))}",
                "leave the products of attention in float: their fused kernel is faster",
            )
        tokens = (
            _keys(each, first=softmax is not None) if facts.flavour is RTX else _longest_side(each)
        )
        if tokens is None or tokens > _FUSED_TOKENS:
            shown = "an open number of" if tokens is None else f"{tokens}"
            yield Fault(
                name_of(each.node),
                f"attention over {shown} tokens in int8, expected at most {_FUSED_TOKENS}",
                "leave the products of attention in float: their fused kernel is faster",
            )


def float8_attention(subject: Subject, facts: DeviceFacts) -> Iterator[Fault]:
    """Attention in FP8 has heads of a multiple of 16, of at most 256, scales its query before, and adds up in float32.

    The fused kernel wants the factor in front of the first product: none stands between that product
    and the softmax. For TensorRT-RTX heads of at most 256 and at least 32 keys will do.
    """
    for each in products(subject):
        if each.weighted or each.convolves or each.narrow_type != ir.DataType.FLOAT8E4M3FN:
            continue
        if facts.flavour is RTX:
            yield from _float8_attention_on_rtx(each)
            continue
        sums = each.node.outputs[0].dtype
        if sums not in {None, ir.DataType.FLOAT}:
            yield Fault(
                name_of(each.node),
                f"adds up in {sums.name}, expected FLOAT",
                "cast both operands to float32 behind their dequantizers",
            )
        softmax, scaled = _softmax_behind(each.node)
        if softmax is None:
            continue
        sizes = sizes_of(each.left.value)
        head = sizes[-1] if sizes else None
        if head is not None and (head % _LEAST_SIZE or not 8 < head <= _LARGEST_HEAD):
            yield Fault(
                name_of(each.node),
                f"heads of {head} in FP8, expected a multiple of {_LEAST_SIZE} "
                f"up to {_LARGEST_HEAD}",
                "leave the products of attention in float",
            )
        if scaled:
            yield Fault(
                name_of(each.node),
                "its scores are scaled behind the product, expected before it",
                "multiply the query, before its quantizer",
            )


def softmax_scale(subject: Subject, facts: DeviceFacts) -> Iterator[Fault]:
    """The scale of probabilities stands for 1, the largest of them, whatever was recorded."""
    del facts
    for each in subject.quantizers:
        node = None if each.data is None else each.data.producer()
        if node is not None and node.op_type == "Cast" and node.inputs[0] is not None:
            node = node.inputs[0].producer()
        narrow, scale = each.narrow_type, subject.single(each.scale)
        if node is None or node.op_type != "Softmax" or not each.quantizes:
            continue
        if scale is None or narrow not in _LARGEST_NUMBERS:
            continue
        wanted = 1 / _LARGEST_NUMBERS[narrow]
        if abs(scale - wanted) > _TOLERANCE * wanted:
            yield Fault(
                name_of(each.node),
                f"scale {scale:g} of probabilities in {narrow.name}, expected {wanted:g}",
                "probabilities end at 1: no calibration is needed",
            )


def _float8_attention_on_rtx(each: Product) -> Iterator[Fault]:
    softmax, _ = _softmax_behind(each.node)
    if softmax is None:
        return
    head, keys = _head(each), _keys(each, first=True)
    if head is not None and head > _LARGEST_HEAD:
        yield Fault(
            name_of(each.node),
            f"heads of {head} in FP8, expected at most {_LARGEST_HEAD}",
            "leave the products of attention in float",
        )
    if keys is not None and keys < _LEAST_FLOAT8_KEYS:
        yield Fault(
            name_of(each.node),
            f"attention over {keys} keys in FP8, expected at least {_LEAST_FLOAT8_KEYS}",
            "leave the products of attention in float",
        )


def _float8_fault(each: Product, facts: DeviceFacts) -> str | None:
    sizes, channels = each.kernel, each.reduced_and_outputs
    is_rtx = facts.flavour is RTX
    if attribute(each.node, "group", 1) > 1 and not is_rtx:
        return "a convolution in groups"
    if sizes is None or channels is None:
        return None
    if prod(sizes[2:]) > _LARGEST_FLOAT8_KERNEL:
        return f"a kernel of {prod(sizes[2:])} numbers, expected at most {_LARGEST_FLOAT8_KERNEL},"
    if min(channels) <= _LEAST_SIZE and not is_rtx:
        return f"{min(channels)} channels, expected more than {_LEAST_SIZE},"
    return None


def _softmax_behind(node: ir.Node) -> tuple[ir.Node | None, bool]:
    """The Softmax that follows a product, and whether a factor stands between them."""
    scaled = False
    while True:
        users = {id(use.node): use.node for use in node.outputs[0].uses()}
        if len(users) != 1:
            return None, scaled
        node = next(iter(users.values()))
        if node.op_type == "Softmax":
            return node, scaled
        if node.op_type not in {"Add", "Cast", "Div", "Mul", "Where"}:
            return None, scaled
        scaled = scaled or node.op_type in {"Div", "Mul"}


def _longest_side(each: Product) -> int | None:
    sizes = [sizes_of(side.value) for side in (each.left, each.right)]
    known = [size[-2:] for size in sizes if size is not None]
    return max(max(pair) for pair in known) if len(known) == len(sizes) else None


def _head(each: Product) -> int | None:
    """What the product of queries with keys reduces."""
    sizes = sizes_of(each.left.value)
    return sizes[-1] if sizes else None


def _keys(each: Product, *, first: bool) -> int | None:
    """Keys of an attention: columns of its first product's keys, or rows of its second product's values."""
    sizes = sizes_of(each.right.value)
    return None if sizes is None else sizes[-1 if first else -2]


def _rows(each: Product) -> int | None:
    sizes = sizes_of(each.left.value)
    return None if sizes is None else prod(sizes[:-1])


def _type(each: Product) -> str:
    found = operand(each.right.value).narrow_type
    return "" if found is None else found.name
