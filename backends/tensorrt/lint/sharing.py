"""Scales that several readers share: one for each tensor, equal ones before a concatenation."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from qdx.backends.tensorrt.lint.findings import DeviceFacts, Fault, name_of
from qdx.backends.tensorrt.lint.products import operand
from qdx.backends.tensorrt.lint.subject import Quantizer, Subject

__all__ = ["concat_scales", "shared_scale"]


def shared_scale(subject: Subject, facts: DeviceFacts) -> Iterator[Fault]:
    """One tensor has one scale, whichever products read it: query, key and value share theirs."""
    del facts
    readers: dict[int, list[Quantizer]] = {}
    for each in subject.quantizers:
        if each.quantizes and not each.of_weight:
            readers.setdefault(id(each.data), []).append(each)
    for group in readers.values():
        scales = {subject.single(each.scale) for each in group} - {None}
        if len(scales) > 1:
            shown = ", ".join(f"{scale:g}" for scale in sorted(s for s in scales if s is not None))
            value = group[0].data
            yield Fault(
                str(value.name) if value is not None else name_of(group[0].node),
                f"quantized by {len(scales)} scales ({shown}), expected one",
                "use the largest scale for all readers, and one quantizer",
            )


def concat_scales(subject: Subject, facts: DeviceFacts) -> Iterator[Fault]:
    """Quantized branches that are concatenated have equal scales, so that integers are joined."""
    del facts
    for node in subject.standard("Concat"):
        found = [operand(value).dequantizer for value in node.inputs]
        branches = [each for each in found if each is not None]
        scales = {subject.single(_scale(each)) for each in branches}
        if len(branches) == len(found) > 1 and len(scales) > 1 and None not in scales:
            shown = ", ".join(f"{scale:g}" for scale in sorted(s for s in scales if s is not None))
            yield Fault(
                name_of(node),
                f"joins branches of scales {shown}, expected one scale",
                "use the largest scale on all branches",
            )


def _scale(dequantizer: ir.Node) -> ir.Value | None:
    return dequantizer.inputs[1] if len(dequantizer.inputs) > 1 else None
