"""Operators: whether the parser reads them, in which version, and with which attributes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Final

import onnx_ir as ir

from qdx.backends.tensorrt.lint.findings import DeviceFacts, Fault, name_of
from qdx.backends.tensorrt.lint.subject import (
    Subject,
    attribute,
    constant_of,
    is_standard,
    sizes_of,
)
from qdx.backends.tensorrt.versions import OPERATORS, TRT_OPERATORS, Version, largest_opset

__all__ = ["integer_operator", "operator_form", "operator_version", "opset"]

_INTEGER_OPERATORS: Final = frozenset(
    ["QLinearConv", "QLinearMatMul", "MatMulInteger", "ConvInteger", "DynamicQuantizeLinear"]
)
_OLDEST_OPSET: Final = 9
_DOMAINS: Final[Mapping[str, Mapping[str, Version]]] = MappingProxyType({"trt": TRT_OPERATORS})
_FORMS: Final = {
    "RMSNormalization": "write it as its arithmetic",
    "RotaryEmbedding": "write it as its arithmetic",
    "Attention": "write it as two products and a softmax",
    "Swish": "write it as a product with a Sigmoid",
    "GroupNormalization": "write it as InstanceNormalization over the groups",
}
"""What to write instead of an operator that is too new."""


def integer_operator(subject: Subject, facts: DeviceFacts) -> Iterator[Fault]:
    """No operator computes on integers: quantizers around float operators do."""
    del facts
    for node in subject.standard(*_INTEGER_OPERATORS):
        yield Fault(
            name_of(node),
            f"{node.op_type} is not read by TensorRT, expected a float operator between quantizers",
            "write DequantizeLinear before and QuantizeLinear behind the float operator",
        )


def operator_version(subject: Subject, facts: DeviceFacts) -> Iterator[Fault]:
    """Every version in the range reads every operator."""
    own = {(key[0], key[1]) for key in subject.model.functions}
    for node in subject.nodes:
        if (node.domain, node.op_type) in own or (
            is_standard(node) and node.op_type in _INTEGER_OPERATORS
        ):
            continue
        table = OPERATORS if is_standard(node) else _DOMAINS.get(node.domain, {})
        first = table.get(node.op_type)
        shown = f"{node.domain}::{node.op_type}".removeprefix("::")
        lacking = is_standard(node) and node.op_type in facts.flavour.lacks
        if first is None or lacking:
            yield Fault(
                name_of(node),
                f"{shown} is not an operator that {facts.flavour.title}'s parser reads",
                "write it with operators that it reads, or leave the component to PyTorch",
            )
        elif first > facts.oldest:
            yield Fault(
                name_of(node),
                f"{shown} in {facts.runtime}, expected {first} or later",
                _FORMS.get(node.op_type),
            )


def opset(subject: Subject, facts: DeviceFacts) -> Iterator[Fault]:
    """The oldest version in the range reads the operator set."""
    largest = largest_opset(facts.oldest)
    found = subject.opset
    if found < _OLDEST_OPSET or (largest is not None and found > largest):
        expected = f"{_OLDEST_OPSET} to {largest}" if largest else f"{_OLDEST_OPSET} or later"
        yield Fault(
            str(subject.model.graph.name),
            f"operator set {found} in {facts.runtime}, expected {expected}",
        )


def operator_form(subject: Subject, facts: DeviceFacts) -> Iterator[Fault]:
    """No operator has an input, output or attribute that the parser does not read."""
    del facts
    for node in subject.nodes:
        check = _LIMITS.get(node.op_type) if is_standard(node) else None
        message = check(node) if check is not None else None
        if message is not None:
            yield Fault(name_of(node), message)


def _split(node: ir.Node) -> str | None:
    sizes = len(node.inputs) > 1 and node.inputs[1] is not None
    if sizes and "num_outputs" in node.attributes:
        return "has both sizes and `num_outputs`, expected one of them"
    return None


def _scatter_nd(node: ir.Node) -> str | None:
    found = _text(node, "reduction", "none")
    return None if found == "none" else f"reduction {found}, expected none"


def _scatter_elements(node: ir.Node) -> str | None:
    found = _text(node, "reduction", "none")
    if found == "none":
        return None
    return f"reduction {found} becomes a plugin that engines carry along, expected none"


def _resize(node: ir.Node) -> str | None:
    mode = _text(node, "mode", "nearest")
    if mode not in {"nearest", "linear"}:
        return f"mode {mode}, expected nearest or linear"
    if attribute(node, "antialias", 0):
        return "antialiased, expected no `antialias`"
    policy = _text(node, "keep_aspect_ratio_policy", "stretch")
    return None if policy == "stretch" else f"aspect ratio policy {policy}, expected stretch"


def _first_output_only(node: ir.Node) -> str | None:
    used = [value for value in node.outputs[1:] if value.uses() or value.is_graph_output()]
    return f"uses {len(used)} outputs beside the first, expected none" if used else None


def _attention(node: ir.Node) -> str | None:
    past = [value for value in node.inputs[4:] if value is not None]
    if past:
        return f"has {len(past)} inputs beside query, key, value and mask, expected none"
    if "softcap" in node.attributes and node.attributes["softcap"].as_float():
        return "has `softcap`, expected none"
    for value in node.inputs[:3]:
        sizes = sizes_of(value)
        if sizes is not None and len(sizes) != 4:
            return f"an input has {len(sizes)} dimensions, expected 4"
    return _first_output_only(node)


def _undilated(node: ir.Node) -> str | None:
    found = node.attributes.get("dilations")
    if found is not None and any(each != 1 for each in found.as_ints()):
        return f"dilations {list(found.as_ints())}, expected none"
    return _first_output_only(node)


def _constant_axes(node: ir.Node) -> str | None:
    axes = node.inputs[1] if len(node.inputs) > 1 else None
    if axes is not None and constant_of(axes) is None:
        return "the axes are computed, expected an initializer"
    return None


def _sorted_top(node: ir.Node) -> str | None:
    return None if attribute(node, "sorted", 1) else "unsorted, expected `sorted` of 1"


def _text(node: ir.Node, name: str, default: str) -> str:
    found = node.attributes.get(name)
    return default if found is None else found.as_string()


_REDUCTIONS: Final = "L1 L2 LogSum LogSumExp Max Mean Min Prod Sum SumSquare"
_LIMITS: Final[Mapping[str, Callable[[ir.Node], str | None]]] = MappingProxyType(
    {
        "Attention": _attention,
        "AveragePool": _undilated,
        "CumSum": _constant_axes,
        "LayerNormalization": _first_output_only,
        "LpPool": _undilated,
        "MaxPool": _undilated,
        "Resize": _resize,
        "ScatterElements": _scatter_elements,
        "ScatterND": _scatter_nd,
        "Split": _split,
        "Squeeze": _constant_axes,
        "TopK": _sorted_top,
        "Unsqueeze": _constant_axes,
        **{f"Reduce{each}": _constant_axes for each in _REDUCTIONS.split()},
    }
)
"""What the parser does not read of the operators that it reads."""
