"""Number formats: the operator set, the version and the device that each one needs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import onnx_ir as ir

from qdx.backends.tensorrt.lint.findings import DeviceFacts, Fault, name_of
from qdx.backends.tensorrt.lint.granularity import is_blocked
from qdx.backends.tensorrt.lint.subject import Subject
from qdx.backends.tensorrt.versions import FEATURES

__all__ = ["float4_device", "float8_device", "format_opset", "format_version"]

_OPSETS: Final = {
    ir.DataType.FLOAT8E4M3FN: 19,
    ir.DataType.INT4: 21,
    ir.DataType.FLOAT4E2M1: 23,
    ir.DataType.FLOAT8E8M0: 24,
}
"""Operator set in which QuantizeLinear and DequantizeLinear take a type."""
_HALF_SCALES: Final = 19
_BLOCKS: Final = 21
_BFLOAT16_CONVOLUTION: Final = 22
_FEATURES: Final = {
    ir.DataType.INT4: "int4_weights",
    ir.DataType.FLOAT4E2M1: "float4",
}
_FLOAT8_CAPABILITY: Final = (8, 9)
_FLOAT4_CAPABILITY: Final = (10, 0)
"""Ada and Blackwell, the first devices with products of these formats."""
_HALVES: Final = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16})


def format_opset(subject: Subject, facts: DeviceFacts) -> Iterator[Fault]:
    """The operator set has the types, blocks and scales that the model uses."""
    del facts
    for each in subject.quantizers:
        needed = [(_OPSETS[kind], kind.name) for kind in _types(each.node) if kind in _OPSETS]
        if is_blocked(each):
            needed.append((_BLOCKS, "blocks"))
        if each.scale is not None and each.scale.dtype in _HALVES:
            needed.append((_HALF_SCALES, f"scales in {each.scale.dtype.name}"))
        opset, what = max(needed, key=lambda each: each[0], default=(0, ""))
        if subject.opset < opset:
            yield _old(name_of(each.node), what, subject.opset, opset)
    for node in subject.standard("Conv", "ConvTranspose"):
        if subject.opset < _BFLOAT16_CONVOLUTION and ir.DataType.BFLOAT16 in _types(node):
            yield _old(
                name_of(node), "convolutions in BFLOAT16", subject.opset, _BFLOAT16_CONVOLUTION
            )


def format_version(subject: Subject, facts: DeviceFacts) -> Iterator[Fault]:
    """Every version in the range has the quantized types that the model uses."""
    for each in subject.quantizers:
        for kind in _types(each.node):
            first = FEATURES[_FEATURES[kind]] if kind in _FEATURES else facts.oldest
            if facts.oldest < first:
                yield Fault(
                    name_of(each.node),
                    f"{kind.name} in {facts.runtime}, expected {first} or later",
                )


def float8_device(subject: Subject, facts: DeviceFacts) -> Iterator[Fault]:
    """The device multiplies FP8 where the model does; otherwise the build fails, late."""
    return _device(subject, facts, ir.DataType.FLOAT8E4M3FN, _FLOAT8_CAPABILITY, "use int8")


def float4_device(subject: Subject, facts: DeviceFacts) -> Iterator[Fault]:
    """The device multiplies FP4 where the model does; others decompress it."""
    return _device(subject, facts, ir.DataType.FLOAT4E2M1, _FLOAT4_CAPABILITY, "use FP8 or int8")


def _device(
    subject: Subject,
    facts: DeviceFacts,
    kind: ir.DataType,
    least: tuple[int, int],
    hint: str,
) -> Iterator[Fault]:
    """One fault for the whole model: the device is the same for all of it."""
    found = facts.compute_capability
    if found is None or found >= least:
        return
    users = [each.node for each in subject.quantizers if kind in _types(each.node)]
    if users:
        yield Fault(
            name_of(users[0]),
            f"{len(users)} quantizers in {kind.name} on compute capability {found[0]}.{found[1]}, "
            f"expected {least[0]}.{least[1]} or later",
            hint,
        )


def _types(node: ir.Node) -> list[ir.DataType]:
    """Types around a node, each once, in order."""
    found = [value.dtype for value in (*node.inputs, *node.outputs) if value is not None]
    return list(dict.fromkeys(kind for kind in found if kind is not None))


def _old(where: str, what: str, found: int, needed: int) -> Fault:
    return Fault(
        where,
        f"{what} in operator set {found}, expected {needed} or later",
        f"export with operator set {needed}",
    )
