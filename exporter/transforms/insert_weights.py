"""Quantized weights in a graph under work: stored parts in the place of a float weight, and what reads them back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qdx.exporter.formats import block_operators
from qdx.exporter.formats.given import given_parts
from qdx.exporter.formats.registry import format_of
from qdx.exporter.graph.ir import operators

if TYPE_CHECKING:
    from torch.fx import Node

    from qdx.exporter.formats.quantization import WeightQuantization
    from qdx.exporter.graph.ir.editing import ProgramEditor
    from qdx.exporter.graph.ir.weights import LazyWeight

__all__ = ["WeightInsertion", "label"]

assert operators.CONTAINERS  # importing the modules registers the operators
assert block_operators.BLOCK_QUANTIZERS


class WeightInsertion:
    """The weights of one graph; operations with the same weight and quantizer share its stored parts."""

    def __init__(self, editor: ProgramEditor, weights: Mapping[str, LazyWeight]) -> None:
        self._editor = editor
        self._weights = weights
        self._stored: dict[str, dict[str, Node]] = {}

    def quantize(
        self, node: Node, weight: str, quantization: WeightQuantization, name: str
    ) -> None:
        """Lets an operation read its weight back from stored parts.

        Args:
            node: The operation.
            weight: Qualified name of its float weight.
            quantization: The quantizer.
            name: The name under which the integers or indices go; the weight's own to replace it.
        """
        index = node.args.index(self._editor.parameter(weight))
        if name not in self._stored:
            self._stored[name] = self._store(weight, quantization, name)

        def insert(op: Any, args: list[Any]) -> Node:
            # Right before its consumer: a graph that runs node by node holds one weight at a time.
            return self._editor.call(op, args, before=node, like=node)

        stored = format_of(quantization.dtype)
        node.update_arg(index, stored.read_back(insert, self._stored[name], quantization))

    def _store(self, weight: str, quantization: WeightQuantization, name: str) -> dict[str, Node]:
        """The placeholders of the stored parts by suffix."""
        parts = given_parts(self._weights[weight], quantization)
        nodes: dict[str, Node] = {}
        for suffix, part in parts.items():
            if not suffix and name == weight:
                nodes[suffix] = self._editor.set_parameter(name, part)
            else:
                named = replace(part, name=name + suffix.replace(".", "_"))
                nodes[suffix] = self._editor.add_parameter(named)
        return nodes


def label(quantization: WeightQuantization) -> str:
    """A quantizer as part of a name, for a weight that is stored in several ways."""
    parts = (
        quantization.dtype,
        quantization.granularity,
        str(quantization.axis),
        quantization.block or quantization.group,
        quantization.lut_dtype,
    )
    return "_".join(str(part) for part in parts if part)
