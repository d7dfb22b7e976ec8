"""Zero points: written down, constant, all zero, in the quantized type, one for each scale.

TensorRT quantizes symmetrically. Its parser reads an absent zero point as int8 where ONNX means
uint8, and takes a uint8 one for int8 with no more than a warning: both run, with wrong numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import onnx_ir as ir

from qdx.backends.tensorrt.lint.findings import DeviceFacts, Fault, name_of
from qdx.backends.tensorrt.lint.subject import Subject, constant_of, sizes_of
from qdx.backends.tensorrt.operators import scales_blocks

__all__ = ["absent", "not_constant", "not_zero", "quantized_type", "size"]

QUANTIZED: Final = frozenset(
    [
        ir.DataType.INT8,
        ir.DataType.FLOAT8E4M3FN,
        ir.DataType.INT4,
        ir.DataType.FLOAT4E2M1,
    ]
)
"""Types that TensorRT quantizes to."""
_EIGHT_BITS: Final = frozenset({ir.DataType.INT8, ir.DataType.FLOAT8E4M3FN})
_SYMMETRIC: Final = "quantize symmetrically, in `int8` with zero points of 0"


def absent(subject: Subject, facts: DeviceFacts) -> Iterator[Fault]:
    """No quantizer of eight bits leaves its zero point out."""
    del facts
    for each in subject.quantizers:
        if each.zero_point is not None or (not each.quantizes and scales_blocks(each.node)):
            continue
        if each.quantizes or each.narrow_type in _EIGHT_BITS:
            reason = ": ONNX means uint8, TensorRT int8" if each.quantizes else ""
            yield Fault(
                name_of(each.node),
                f"has no zero point{reason}; expected one of 0 in the quantized type",
                "write the zero point",
            )


def not_constant(subject: Subject, facts: DeviceFacts) -> Iterator[Fault]:
    """Every zero point is an initializer."""
    del facts
    for each in subject.quantizers:
        if each.zero_point is not None and constant_of(each.zero_point) is None:
            yield Fault(
                name_of(each.node), "the zero point is computed, expected an initializer of zeros"
            )


def not_zero(subject: Subject, facts: DeviceFacts) -> Iterator[Fault]:
    """Every zero point is zero."""
    del facts
    for each in subject.quantizers:
        found = subject.numbers(each.zero_point)
        if found is None or (found.smallest == 0 and found.largest == 0):
            continue
        shown = f"{found.smallest:g}"
        if found.largest != found.smallest:
            shown = f"{found.smallest:g} to {found.largest:g}"
        yield Fault(name_of(each.node), f"zero point {shown}, expected 0", _SYMMETRIC)


def quantized_type(subject: Subject, facts: DeviceFacts) -> Iterator[Fault]:
    """Every quantizer has one of TensorRT's quantized types, on its data and its zero point alike."""
    del facts
    for each in subject.quantizers:
        zero = None if each.zero_point is None else each.zero_point.dtype
        narrow = each.narrow_type
        if narrow == ir.DataType.INT32:
            continue  # a bias, which has a rule of its own
        if narrow is not None and narrow not in QUANTIZED:
            names = ", ".join(sorted(kind.name for kind in QUANTIZED))
            yield Fault(
                name_of(each.node),
                f"quantized to {narrow.name}, expected one of {names}",
                _SYMMETRIC,
            )
        elif zero is not None and narrow is not None and zero != narrow:
            yield Fault(
                name_of(each.node),
                f"zero point in {zero.name} of numbers in {narrow.name}, expected the same type",
            )


def size(subject: Subject, facts: DeviceFacts) -> Iterator[Fault]:
    """A zero point has as many numbers as the scale."""
    del facts
    for each in subject.quantizers:
        if each.zero_point is None:
            continue
        zeros, scales = sizes_of(each.zero_point), each.scales
        if zeros is not None and scales is not None and _volume(zeros) != _volume(scales):
            yield Fault(
                name_of(each.node),
                f"zero point of shape {list(zeros)} for a scale of shape {list(scales)}, "
                "expected the same",
            )


def _volume(sizes: tuple[int, ...]) -> int:
    total = 1
    for each in sizes:
        total *= each
    return total
