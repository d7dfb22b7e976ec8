"""Floats in blocks, NVFP4 and MXFP8: what their operators take, and the device that multiplies them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

import onnx_ir as ir

from qdx.backends.tensorrt.lint.findings import DeviceFacts, Fault, name_of
from qdx.backends.tensorrt.lint.subject import Subject, attribute, constant_of, sizes_of
from qdx.backends.tensorrt.operators import (
    DOMAIN,
    FP4_QUANTIZE,
    MXFP8_DEQUANTIZE,
    MXFP8_QUANTIZE,
)
from qdx.exporter.formats.block_floats import MXFP8_BLOCK, NVFP4_BLOCK

__all__ = ["block_device", "block_exponents", "block_quantizer", "tensor_scale"]

_BLOCKS: Final[Mapping[str, int]] = MappingProxyType(
    {FP4_QUANTIZE: NVFP4_BLOCK, MXFP8_QUANTIZE: MXFP8_BLOCK, MXFP8_DEQUANTIZE: MXFP8_BLOCK}
)
_RANKS: Final = (2, 3)
_CAPABILITY: Final = (10, 0)
"""Blackwell."""


def block_quantizer(subject: Subject, facts: DeviceFacts) -> Iterator[Fault]:
    """Blocks of floats divide the last axis, of 16 in FP4 and of 32 in MXFP8, of two or three dimensions."""
    del facts
    for node in _nodes(subject, *_BLOCKS):
        fault = _division_fault(node, _BLOCKS[node.op_type])
        if fault is not None:
            hint = "keep the operation in float, or in 8 bits with one scale"
            yield Fault(name_of(node), fault, hint)


def tensor_scale(subject: Subject, facts: DeviceFacts) -> Iterator[Fault]:
    """The scale of the whole tensor in NVFP4 is one positive number in float32, an initializer."""
    del facts
    for node in _nodes(subject, FP4_QUANTIZE):
        scale = node.inputs[1] if len(node.inputs) > 1 else None
        number = subject.single(scale)
        if scale is None or constant_of(scale) is None:
            yield Fault(name_of(node), "the scale is computed, expected an initializer")
        elif scale.dtype != ir.DataType.FLOAT or number is None or sizes_of(scale) != ():
            kind = "nothing" if scale.dtype is None else scale.dtype.name
            yield Fault(
                name_of(node),
                f"scale in {kind} of shape {list(sizes_of(scale) or ())}, expected one FLOAT",
            )
        elif not 0 < number < float("inf"):
            yield Fault(name_of(node), f"scale {number:g}, expected a positive number")


def block_exponents(subject: Subject, facts: DeviceFacts) -> Iterator[Fault]:
    """MXFP8 is read back from FP8 by exponents in uint8, one for each block."""
    del facts
    for node in _nodes(subject, MXFP8_DEQUANTIZE):
        elements, exponents = (*node.inputs, None)[:2]
        kinds = [None if value is None else value.dtype for value in (elements, exponents)]
        if kinds != [ir.DataType.FLOAT8E4M3FN, ir.DataType.UINT8]:
            shown = " and ".join("nothing" if kind is None else kind.name for kind in kinds)
            yield Fault(name_of(node), f"reads {shown}, expected FLOAT8E4M3FN and UINT8")
            continue
        sizes, found = sizes_of(elements), sizes_of(exponents)
        if not sizes or found is None:
            continue
        wanted = (*sizes[:-1], sizes[-1] // _BLOCKS[MXFP8_DEQUANTIZE])
        if found != wanted:
            yield Fault(
                name_of(node),
                f"exponents of shape {list(found)} for elements of shape {list(sizes)}, "
                f"expected {list(wanted)}",
            )


def block_device(subject: Subject, facts: DeviceFacts) -> Iterator[Fault]:
    """The device quantizes in blocks of floats where the model does; others fail to build it."""
    capability = facts.compute_capability
    users = list(_nodes(subject, *_BLOCKS))
    if users and capability is not None and capability < _CAPABILITY:
        major, minor = capability
        yield Fault(
            name_of(users[0]),
            f"{len(users)} operators of floats in blocks on compute capability {major}.{minor}, "
            f"expected {_CAPABILITY[0]}.{_CAPABILITY[1]} or later",
            "use FP8 or int8",
        )


def _division_fault(node: ir.Node, block: int) -> str | None:
    """What is wrong with the blocks of an operator; sizes that are not known are not judged."""
    shape = None if node.inputs[0] is None else node.inputs[0].shape
    axis = attribute(node, "axis", -1 if node.op_type == MXFP8_QUANTIZE else 1)
    found = attribute(node, "block_size", block)
    if found != block:
        return f"blocks of {found}, expected {block}"
    if shape is None:
        return None
    if len(shape) not in _RANKS:
        return f"{len(shape)} dimensions, expected two or three"
    if axis not in {-1, len(shape) - 1}:
        return f"blocks along axis {axis}, expected the last one"
    last = shape[-1]
    if isinstance(last, int) and last % block:
        return f"{last} numbers along the last axis, expected a multiple of {block}"
    return None


def _nodes(subject: Subject, *kinds: str) -> Iterator[ir.Node]:
    return (node for node in subject.nodes if node.domain == DOMAIN and node.op_type in kinds)
