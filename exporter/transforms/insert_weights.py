"""Quantized weights in a graph under work: stored parts in the place of a float weight, and what reads them back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import torch

from qdx.exporter.formats import block_operators
from qdx.exporter.formats.affine import derived_weights
from qdx.exporter.formats.block_weights import derived_blocks
from qdx.exporter.formats.palettes import derived_palette
from qdx.exporter.graph.ir import operators

if TYPE_CHECKING:
    from torch.fx import Node

    from qdx.exporter.formats.quantization import WeightQuantization
    from qdx.exporter.graph.ir.editing import ProgramEditor
    from qdx.exporter.graph.ir.weights import LazyWeight

__all__ = ["WeightInsertion", "label"]

assert operators.CONTAINERS  # importing the modules registers the operators
assert block_operators.BLOCK_QUANTIZERS
ops: Final = torch.ops.qdx

_TABLE: Final = ".table"
_SCALE: Final = ".scale"
_ZERO_POINT: Final = ".zero_point"


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
        # Right before its consumer: a graph that runs node by node holds one weight at a time.
        read = _integers
        if quantization.palette_bits:
            read = _palette
        elif quantization.block_floats:
            read = _blocks
        node.update_arg(index, read(self._editor, node, self._stored[name], quantization))

    def _store(self, weight: str, quantization: WeightQuantization, name: str) -> dict[str, Node]:
        """The placeholders of the stored parts by suffix."""
        source = self._weights[weight]
        if quantization.palette_bits:
            parts = derived_palette(source, quantization)
        elif quantization.block_floats:
            parts = derived_blocks(source, quantization)
        else:
            parts = derived_weights(source, quantization)
            if _zero_is_zero(quantization):
                del parts[_ZERO_POINT]
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


def _integers(
    editor: ProgramEditor, node: Node, parts: Mapping[str, Node], quantization: WeightQuantization
) -> Node:
    stored = [parts[""], parts[_SCALE], parts.get(_ZERO_POINT)]
    how = [quantization.axis, quantization.block, quantization.dtype]
    return editor.call(ops.dequantize.default, [*stored, *how], before=node, like=node)


def _palette(
    editor: ProgramEditor, node: Node, parts: Mapping[str, Node], quantization: WeightQuantization
) -> Node:
    axis, bits, group = quantization.axis, quantization.palette_bits, quantization.group
    values = editor.call(
        ops.lut.default, [parts[""], parts[_TABLE], axis, bits], before=node, like=node
    )
    if _SCALE not in parts:
        return values
    how = [parts[_SCALE], None, axis, group, "int8"]
    return editor.call(ops.dequantize.default, [values, *how], before=node, like=node)


def _blocks(
    editor: ProgramEditor, node: Node, parts: Mapping[str, Node], quantization: WeightQuantization
) -> Node:
    if quantization.dtype == "mxfp8":
        given = [parts[""], parts[".exponent"]]
        return editor.call(ops.dequantize_mxfp8.default, given, before=node, like=node)
    axis, block = quantization.axis, quantization.block
    outer = [parts[".block_scale"], parts[_SCALE], None, axis, 0, "float8_e4m3fn"]
    scales = editor.call(ops.dequantize.default, outer, before=node, like=node)
    inner = [parts[""], scales, None, axis, block, "float4_e2m1fn"]
    return editor.call(ops.dequantize.default, inner, before=node, like=node)


def _zero_is_zero(quantization: WeightQuantization) -> bool:
    return quantization.symmetric and not quantization.dtype.startswith("u")
