"""Where quantizers stand: both operands of a product, right before it, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import onnx_ir as ir

from qdx.backends.tensorrt.flavour import RTX
from qdx.backends.tensorrt.lint.findings import DeviceFacts, Fault, name_of
from qdx.backends.tensorrt.lint.products import EIGHT_BITS, Operand, Product, operand, products
from qdx.backends.tensorrt.lint.subject import Quantizer, Subject, constant_of

__all__ = [
    "lonely_quantizer",
    "mixed_formats",
    "one_operand",
    "refit",
    "requantized",
    "residual",
    "weight_path",
]

_FLOAT_ONLY: Final = frozenset(
    [
        "Cos",
        "Erf",
        "Exp",
        "Gelu",
        "GroupNormalization",
        "InstanceNormalization",
        "LayerNormalization",
        "RMSNormalization",
        "Sigmoid",
        "Sin",
        "Softmax",
        "Swish",
        "Tanh",
    ]
)
"""Operators that compute in float whatever stands before them."""


def one_operand(subject: Subject, facts: DeviceFacts) -> Iterator[Fault]:
    """A product has both operands quantized, or neither; weights of four bits may be alone."""
    del facts
    for each in products(subject):
        wide, narrow = _one_quantized(each)
        if wide is None or narrow is None:
            continue
        alone = narrow.constant and narrow.narrow_type not in EIGHT_BITS
        if not alone:
            words = "weight" if narrow.constant else "input"
            yield Fault(
                name_of(each.node),
                f"only its {words} is quantized, so that it computes in float; expected both",
                "quantize the other operand too, or neither",
            )


def mixed_formats(subject: Subject, facts: DeviceFacts) -> Iterator[Fault]:
    """Both operands of a product are quantized in the same format."""
    del facts
    for each in products(subject):
        left, right = each.left.format, each.right.format
        if left and right and left != right:
            yield Fault(
                name_of(each.node),
                f"multiplies {left} by {right}, so that it computes in float; expected one format",
                "quantize both operands alike",
            )


def weight_path(subject: Subject, facts: DeviceFacts) -> Iterator[Fault]:
    """The dequantizer of a weight feeds its product directly."""
    del facts
    for each in products(subject):
        for side in (each.left, each.right):
            if not side.constant or side.dequantizer is None:
                continue
            # Blocks of floats lie along the last axis, which a MatMul does not reduce; NVFP4 is read in float32.
            free = {"Cast", "Transpose"} if side.in_blocks_of_floats else set()
            between = [node.op_type for node in side.passed if node.op_type not in free]
            if between:
                yield Fault(
                    name_of(each.node),
                    f"{', '.join(between)} behind the dequantizer of its weight, expected nothing",
                    "store the weight as the product reads it",
                )


def lonely_quantizer(subject: Subject, facts: DeviceFacts) -> Iterator[Fault]:
    """Nothing is quantized for an operator that computes in float anyway."""
    del facts
    for each in subject.quantizers:
        if each.quantizes or each.of_weight:
            continue
        for use in each.node.outputs[0].uses():
            kind = use.node.op_type
            if kind in _FLOAT_ONLY and not (
                kind == "LayerNormalization" and _comes_from_convolution(each)
            ):
                yield Fault(
                    name_of(use.node),
                    f"its input is quantized, and {kind} computes in float",
                    "quantize behind it, right before the next product",
                )


def residual(subject: Subject, facts: DeviceFacts) -> Iterator[Fault]:
    """Where a quantizer follows the sum of a product and a skip connection, the skip is quantized.

    Otherwise the product cannot give integers itself: its output stays in float. Products of TensorRT-RTX add nothing.
    """
    if facts.flavour is RTX:
        return
    for node in subject.standard("Add"):
        if len(node.inputs) != 2 or any(constant_of(value) is not None for value in node.inputs):
            continue
        if not any(use.node.op_type == "QuantizeLinear" for use in node.outputs[0].uses()):
            continue
        sides = [operand(value) for value in node.inputs]
        made = [_quantized_product(value) for value in node.inputs]
        for index, product in enumerate(made):
            other = 1 - index
            if product and sides[other].dequantizer is None and not made[other]:
                yield Fault(
                    name_of(node),
                    "adds a float value to a quantized product and is quantized itself, "
                    "expected the other branch quantized too",
                    "quantize the skip connection",
                )


def requantized(subject: Subject, facts: DeviceFacts) -> Iterator[Fault]:
    """What was just dequantized is not quantized again by another scale."""
    del facts
    for each in subject.quantizers:
        if not each.quantizes or each.of_weight:
            continue
        before = operand(each.data).dequantizer
        if before is None:
            continue
        first, second = subject.single(before.inputs[1]), subject.single(each.scale)
        if first is not None and second is not None and first != second:
            yield Fault(
                name_of(each.node),
                f"scale {second:g} of what has just been dequantized by {first:g}, "
                "expected the same scale",
                "rounding twice loses bits: use one quantizer",
            )


def refit(subject: Subject, facts: DeviceFacts) -> Iterator[Fault]:
    """An engine whose weights will be exchanged has no quantizers: equal scales are not used then."""
    if facts.refit and subject.quantizers:
        yield Fault(
            name_of(subject.quantizers[0].node),
            f"{len(subject.quantizers)} quantizers in an engine with exchangeable weights, "
            "which runs slower; expected none",
            "fuse the weights before the export and build without refitting",
        )


def _one_quantized(each: Product) -> tuple[Operand | None, Operand | None]:
    """The operand in float and the quantized one, where there is one of each."""
    sides = (each.left, each.right)
    wide = [side for side in sides if side.dequantizer is None]
    narrow = [side for side in sides if side.dequantizer is not None]
    return (wide[0], narrow[0]) if len(wide) == len(narrow) == 1 else (None, None)


def _comes_from_convolution(each: Quantizer) -> bool:
    """Whether the numbers are those of a convolution, which can give integers itself."""
    quantizer = None if each.data is None else each.data.producer()
    value = quantizer.inputs[0] if quantizer is not None and quantizer.inputs else None
    node = None if value is None else value.producer()
    return node is not None and node.op_type == "Conv"


def _quantized_product(value: ir.Value | None) -> bool:
    """Whether a value is made by a quantized product, multiplied by channel and its bias added or not."""
    node = None if value is None else value.producer()
    for kind in ("Add", "Mul"):
        if node is not None and node.op_type == kind:
            inner = [each for each in node.inputs if constant_of(each) is None]
            node = inner[0].producer() if len(inner) == 1 and inner[0] is not None else None
    if node is None or node.op_type not in {"Conv", "ConvTranspose", "Gemm", "MatMul"}:
        return False
    return all(operand(each).dequantizer is not None for each in node.inputs[:2])
