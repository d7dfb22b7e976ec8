"""Scales: initializers, positive, in the type of what they scale."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import onnx_ir as ir

from qdx.backends.tensorrt.lint.findings import DeviceFacts, Fault, name_of
from qdx.backends.tensorrt.lint.subject import FLOATS, Quantizer, Subject, constant_of

__all__ = ["not_initializer", "not_positive", "scale_type", "underflow"]

_TYPED_OPSET: Final = 19
"""From this operator set on, the parser casts no scale to the type of the input."""


def not_initializer(subject: Subject, facts: DeviceFacts) -> Iterator[Fault]:
    """Every scale is an initializer, but for those of blocks that have scales themselves."""
    del facts
    for each in subject.quantizers:
        if constant_of(each.scale) is None and not _is_second_level(each):
            yield Fault(
                name_of(each.node),
                "the scale is computed, expected an initializer",
                "scales of blocks may be dequantized from FP8; others are written as constants",
            )


def not_positive(subject: Subject, facts: DeviceFacts) -> Iterator[Fault]:
    """Every scale is positive and finite; a channel of zeros needs a smallest scale."""
    del facts
    for each in subject.quantizers:
        found = subject.numbers(each.scale)
        if found is None or (found.finite and found.smallest > 0):
            continue
        yield Fault(
            name_of(each.node),
            f"scale from {found.smallest:g} to {found.largest:g}, expected positive numbers",
            "clamp scales of constant channels to a small positive number",
        )


def scale_type(subject: Subject, facts: DeviceFacts) -> Iterator[Fault]:
    """A scale has a float type, and from operator set 19 on that of the quantizer's input."""
    del facts
    for each in subject.quantizers:
        scale = None if each.scale is None else each.scale.dtype
        if scale is None:
            continue
        if scale not in FLOATS:
            yield Fault(
                name_of(each.node), f"scale in {scale.name}, expected FLOAT, FLOAT16 or BFLOAT16"
            )
            continue
        data = None if each.data is None else each.data.dtype
        if each.quantizes and subject.opset >= _TYPED_OPSET and data is not None and data != scale:
            yield Fault(
                name_of(each.node),
                f"scale in {scale.name} of numbers in {data.name}, expected the same type",
                "write the scale in the type of the numbers",
            )


def underflow(subject: Subject, facts: DeviceFacts) -> Iterator[Fault]:
    """A scale is still positive once it is cast to the float16 that its numbers have."""
    del facts
    for each in subject.quantizers:
        cast = _cast_to_half(each)
        source = cast.inputs[0] if cast is not None else each.scale
        if cast is None and not _is_cast_by_parser(subject, each):
            continue
        found = subject.numbers(source)
        if found is not None and found.smallest > 0 and float(np.float16(found.smallest)) == 0:
            yield Fault(
                name_of(each.node),
                f"scale {found.smallest:g} becomes 0 in float16, expected at least 6e-08",
                "keep the scale in float32 and ask for the output type (`output_dtype`)",
            )


def _is_cast_by_parser(subject: Subject, each: Quantizer) -> bool:
    data, scale = each.data, each.scale
    return (
        each.quantizes
        and subject.opset < _TYPED_OPSET
        and data is not None
        and scale is not None
        and data.dtype == ir.DataType.FLOAT16
        and scale.dtype == ir.DataType.FLOAT
    )


def _cast_to_half(each: Quantizer) -> ir.Node | None:
    node = None if each.scale is None else each.scale.producer()
    if node is None or node.op_type != "Cast" or node.inputs[0] is None:
        return None
    return node if node.outputs[0].dtype == ir.DataType.FLOAT16 else None


def _is_second_level(each: Quantizer) -> bool:
    """Whether the scale is dequantized from FP8, by which blocks of FP4 are scaled."""
    node = None if each.scale is None else each.scale.producer()
    if each.quantizes or each.narrow_type != ir.DataType.FLOAT4E2M1:
        return False
    if node is None or node.op_type != "DequantizeLinear" or node.inputs[0] is None:
        return False
    return node.inputs[0].dtype == ir.DataType.FLOAT8E4M3FN
