"""What shares a scale: a tensor, a channel of a weight, or a block along one axis."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Final

import onnx_ir as ir

from qdx.backends.tensorrt.flavour import RTX
from qdx.backends.tensorrt.lint.findings import DeviceFacts, Fault, name_of
from qdx.backends.tensorrt.lint.subject import Quantizer, Subject, attribute, sizes_of

__all__ = ["activation_by_channel", "axis_size", "block_shape", "int4_block", "odd_count"]

_PACKED: Final = frozenset({ir.DataType.INT4, ir.DataType.FLOAT4E2M1})
_INT4_BLOCKS: Final = (64, 128)
"""See "Quantization Schemes" in NVIDIA's documentation of TensorRT 11."""


def is_blocked(each: Quantizer) -> bool:
    """Whether several scales lie along one axis of the data, each for some numbers."""
    scales, data = each.scales, sizes_of(each.data)
    if attribute(each.node, "block_size", 0):
        return True
    return scales is not None and data is not None and len(scales) == len(data) > 1


def activation_by_channel(subject: Subject, facts: DeviceFacts) -> Iterator[Fault]:
    """An activation has one scale; blocks of FP4 may have more."""
    del facts
    for each in subject.quantizers:
        scales = each.scales
        if scales is None or prod(scales) == 1 or each.of_weight:
            continue
        if is_blocked(each) and each.narrow_type == ir.DataType.FLOAT4E2M1:
            continue
        yield Fault(
            name_of(each.node),
            f"{prod(scales)} scales of an activation, expected 1",
            "scales of channels are for weights alone",
        )


def axis_size(subject: Subject, facts: DeviceFacts) -> Iterator[Fault]:
    """Scales of channels are as many as the axis is long."""
    del facts
    for each in subject.quantizers:
        scales, data = each.scales, sizes_of(each.data)
        if scales is None or len(scales) != 1 or data is None or is_blocked(each):
            continue
        if not -len(data) <= each.axis < len(data):
            yield Fault(name_of(each.node), f"axis {each.axis} of {len(data)} dimensions")
        elif data[each.axis] != scales[0]:
            yield Fault(
                name_of(each.node),
                f"{scales[0]} scales along axis {each.axis} of {data[each.axis]}, expected as many",
                "write a scale of the whole tensor without dimensions" if scales[0] == 1 else None,
            )


def block_shape(subject: Subject, facts: DeviceFacts) -> Iterator[Fault]:
    """Blocks divide one dimension, the last or the one before it."""
    del facts
    for each in subject.quantizers:
        scales, data = each.scales, sizes_of(each.data)
        if scales is None or data is None or not is_blocked(each):
            continue
        if len(scales) != len(data):
            yield Fault(
                name_of(each.node),
                f"blocks with a scale of {len(scales)} dimensions for data of {len(data)}, "
                "expected as many",
            )
            continue
        blocked = [axis for axis, size in enumerate(data) if scales[axis] != size]
        uneven = [axis for axis in blocked if scales[axis] == 0 or data[axis] % scales[axis]]
        if len(blocked) > 1:
            yield Fault(name_of(each.node), f"blocks along axes {blocked}, expected along one")
        elif uneven:
            axis = uneven[0]
            yield Fault(
                name_of(each.node),
                f"{scales[axis]} scales for {data[axis]} numbers along axis {axis}, "
                "expected blocks of one size",
            )
        elif blocked and blocked[0] < len(data) - 2:
            yield Fault(
                name_of(each.node),
                f"blocks along axis {blocked[0]} of {len(data)}, expected one of the last two",
            )


def int4_block(subject: Subject, facts: DeviceFacts) -> Iterator[Fault]:
    """Integers of 4 bits have blocks of 64 or 128 numbers, others are not documented; for TensorRT-RTX any."""
    if facts.flavour is RTX:
        return
    for each in subject.quantizers:
        block = attribute(each.node, "block_size", 0)
        if each.narrow_type == ir.DataType.INT4 and block and block not in _INT4_BLOCKS:
            yield Fault(
                name_of(each.node),
                f"blocks of {block}, documented are {' and '.join(map(str, _INT4_BLOCKS))}",
                "leave `block` out of the plan, as the preset `w4` does",
            )


def odd_count(subject: Subject, facts: DeviceFacts) -> Iterator[Fault]:
    """Numbers of four bits come in pairs."""
    del facts
    for each in subject.quantizers:
        sizes = sizes_of(each.data)
        if each.narrow_type in _PACKED and sizes is not None and prod(sizes) % 2:
            yield Fault(
                name_of(each.node), f"{prod(sizes)} numbers of four bits, expected an even number"
            )
