"""Which site an operation of a model computes, from the names that lowering gave and what it is joined to."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from pathlib import Path
from typing import Final

import onnx_ir as ir

__all__ = ["SiteNames"]

_WEIGHTED: Final = frozenset(["Conv", "ConvTranspose", "Gemm", "MatMul"])
_NORMS: Final = frozenset(["GroupNormalization", "InstanceNormalization", "LayerNormalization"])
_ON_THE_WAY: Final = frozenset(
    [
        "Add",
        "Cast",
        "DequantizeLinear",
        "Mul",
        "QuantizeLinear",
        "Reshape",
        "Sub",
        "TRT_MXFP8DequantizeLinear",
        "Transpose",
        "Where",
    ]
)
"""What may stand between a weight and its product, or between a product of attention and the softmax."""
_ABSORBED: Final = frozenset(
    [
        "Add",
        "BatchNormalization",
        "Clip",
        "Div",
        "LeakyRelu",
        "Mul",
        "Relu",
        "Sigmoid",
        "Sub",
        "Tanh",
    ]
)
"""What convolutions and products take in behind them."""
_SUFFIX: Final = re.compile(r"(_token_\d+|_nchwc|_nhwc|/.*|_\d+)*\Z")
"""What the runtime adds to the name of an operation that it fuses or moves to another layout."""


class SiteNames:
    """The sites of a model's operations, by the names that the runtime gives them."""

    def __init__(self, model: Path) -> None:
        """Reads the model's structure; weights stay on disk."""
        self._sites: dict[str, tuple[str, ...]] = {}
        calls: Counter[str] = Counter()
        for node in ir.load(model).graph:
            name = str(node.name)
            base = _site(node, name.rpartition("/")[0])
            keys: tuple[str, ...] = ()
            if node.op_type == "MultiHeadAttention":
                calls[f"{base}.qk"] += 1
                number = _number(calls[f"{base}.qk"])
                keys = (f"{base}.qk{number}", f"{base}.pv{number}")
            elif base is not None:
                calls[base] += 0 if _is_later_part(node) else 1
                keys = (f"{base}{_number(calls[base])}",)
            else:
                keys = self._absorbing(node)
            # The runtime sometimes names a node after the value that it makes.
            for each in (name, *(str(value.name) for value in node.outputs)):
                self._sites[each] = keys
        self._order = sorted(self._sites)

    def _absorbing(self, node: ir.Node) -> tuple[str, ...]:
        """The sites whose kernel may take a node in and then bear its name."""
        if node.op_type not in _ABSORBED:
            return ()
        producers = [value.producer() for value in node.inputs if value is not None]
        found = {self._sites.get(str(each.name), ()) for each in producers if each is not None}
        found.discard(())
        return found.pop() if len(found) == 1 else ()

    def sites(self, name: str) -> tuple[str, ...]:
        """The keys of the sites that a node of the runtime's own graph computes; none for other nodes."""
        # Names that begin a name sort before it; the longest of them is the last.
        for known in reversed(self._order[: bisect_right(self._order, name)]):
            if name.startswith(known) and _SUFFIX.fullmatch(name, len(known)):
                return self._sites[known]
            if not known or known[0] != name[:1]:
                break
        return ()


def _number(call: int) -> str:
    return "" if call == 1 else f"#{call}"


def _site(node: ir.Node, path: str) -> str | None:
    """The site's key without the number of the call, or None."""
    if node.op_type == "MultiHeadAttention" or node.op_type in _NORMS:
        return path
    if node.op_type == "Gather":
        data = node.inputs[0]
        return (
            path
            if data is not None and data.is_initializer() and data.name == f"{path}.weight"
            else None
        )
    if node.op_type not in _WEIGHTED:
        return None
    if any(_from_weight(value) for value in node.inputs[:2]):
        return path or node.op_type.lower()
    prefix = f"{path}." if path else ""
    if _leads_to_softmax(node):
        return f"{prefix}qk"
    return f"{prefix}pv" if _comes_from_softmax(node.inputs[0]) else f"{prefix}matmul"


def _is_later_part(node: ir.Node) -> bool:
    """Whether a node is another part of an operation whose weight was split."""
    name = _weight_name(node.inputs[1]) if len(node.inputs) > 1 else None
    return name is not None and name.rpartition("/")[2] != "0" and "/" in name


def _from_weight(value: ir.Value | None) -> bool:
    return _weight_name(value) is not None


def _weight_name(value: ir.Value | None) -> str | None:
    """The initializer that a value is, converted at most."""
    while value is not None and not value.is_initializer():
        node = value.producer()
        if node is None or node.op_type not in _ON_THE_WAY:
            return None
        value = node.inputs[0]
    return None if value is None else str(value.name)


def _leads_to_softmax(node: ir.Node) -> bool:
    pending = [node]
    while pending:
        for use in pending.pop().outputs[0].uses():
            if use.node.op_type == "Softmax":
                return True
            if use.node.op_type in _ON_THE_WAY:
                pending.append(use.node)
    return False


def _comes_from_softmax(value: ir.Value | None) -> bool:
    while value is not None:
        node = value.producer()
        if node is None or node.op_type == "Softmax":
            return node is not None
        if node.op_type not in _ON_THE_WAY:
            return False
        value = node.inputs[0]
    return False
