"""A model as the rules look at it: its nodes, its quantizers, and its small constants in summary.

Weights stay where they are: only scales and zero points are ever read, each once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import onnx_ir as ir
from onnx_ir import convenience

__all__ = [
    "FLOATS",
    "MOVES",
    "STANDARD",
    "Numbers",
    "Quantizer",
    "Subject",
    "attribute",
    "constant_of",
    "is_standard",
    "rooted_in_constant",
    "sizes_of",
]

STANDARD: Final = frozenset({"", "ai.onnx"})
FLOATS: Final = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16})
MOVES: Final = frozenset(
    ["Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"]
)
"""Operators that keep the numbers and change their order, shape or type."""
_KINDS: Final = frozenset({"QuantizeLinear", "DequantizeLinear"})


@dataclass(frozen=True)
class Numbers:
    """A constant in summary.

    Attributes:
        count: How many numbers.
        smallest: The least; NaN where one is NaN.
        largest: The greatest; NaN where one is NaN.
    """

    count: int
    smallest: float
    largest: float

    @property
    def finite(self) -> bool:
        """Whether no number is infinite or NaN."""
        return bool(np.isfinite(self.smallest) and np.isfinite(self.largest))


@dataclass(frozen=True)
class Quantizer:
    """A QuantizeLinear or DequantizeLinear.

    Attributes:
        node: The node itself.
    """

    node: ir.Node

    @property
    def quantizes(self) -> bool:
        """Whether it makes integers of floats."""
        return self.node.op_type == "QuantizeLinear"

    @property
    def data(self) -> ir.Value | None:
        """What it quantizes or dequantizes."""
        return self.node.inputs[0]

    @property
    def scale(self) -> ir.Value | None:
        """The scale."""
        return self.node.inputs[1]

    @property
    def zero_point(self) -> ir.Value | None:
        """The zero point; None where it is left out."""
        return self.node.inputs[2] if len(self.node.inputs) > 2 else None

    @property
    def axis(self) -> int:
        """The axis as the node says it; 1 where it does not."""
        return attribute(self.node, "axis", 1)

    @property
    def narrow_type(self) -> ir.DataType | None:
        """Type of the quantized side, as TensorRT's parser chooses it; None where nothing tells."""
        if not self.quantizes:
            return None if self.data is None else self.data.dtype
        asked = attribute(self.node, "output_dtype", 0)
        if asked:
            return ir.DataType(asked)
        return None if self.zero_point is None else self.zero_point.dtype

    @property
    def of_weight(self) -> bool:
        """Whether its numbers come from a constant."""
        return rooted_in_constant(self.data)

    @property
    def scales(self) -> tuple[int, ...] | None:
        """Shape of the scale; None where it is not known."""
        return sizes_of(self.scale)


class Subject:
    """A model with what several rules ask of it.

    Attributes:
        model: The model itself.
        nodes: All nodes, those of subgraphs and local functions too.
    """

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.nodes: tuple[ir.Node, ...] = (
            *model.graph.all_nodes(),
            *(node for function in model.functions.values() for node in function.all_nodes()),
        )
        self._numbers: dict[int, Numbers | None] = {}

    @property
    def opset(self) -> int:
        """Version of the standard operator set; 0 where the model imports none."""
        found = self.model.opset_imports
        return found.get("", found.get("ai.onnx", 0)) or 0

    @cached_property
    def quantizers(self) -> tuple[Quantizer, ...]:
        """Every standard QuantizeLinear and DequantizeLinear that has its two inputs, in order."""
        return tuple(
            Quantizer(node)
            for node in self.nodes
            if node.op_type in _KINDS and is_standard(node) and len(node.inputs) > 1
        )

    def standard(self, *kinds: str) -> Iterator[ir.Node]:
        """Nodes of some standard operators, in order."""
        return (node for node in self.nodes if node.op_type in kinds and is_standard(node))

    def numbers(self, value: ir.Value | None) -> Numbers | None:
        """Summary of a constant, which is read the first time; None where it is no constant."""
        if value is None:
            return None
        if id(value) not in self._numbers:
            self._numbers[id(value)] = _summary(value)
        return self._numbers[id(value)]

    def single(self, value: ir.Value | None) -> float | None:
        """The number of a constant that holds one; None otherwise."""
        found = self.numbers(value)
        return found.smallest if found is not None and found.count == 1 else None


def constant_of(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor of an initializer or of a Constant; its bytes are not read."""
    return None if value is None else convenience.get_const_tensor(value)


def is_standard(node: ir.Node) -> bool:
    """Whether the operator is one of ONNX itself."""
    return node.domain in STANDARD


def attribute(node: ir.Node, name: str, default: int) -> int:
    """An integer attribute."""
    found = node.attributes.get(name)
    return default if found is None else found.as_int()


def sizes_of(value: ir.Value | None) -> tuple[int, ...] | None:
    """A value's shape; None where it, or a part of it, is not known."""
    if value is None or value.shape is None:
        return None
    sizes = tuple(value.shape)
    return tuple(s for s in sizes if isinstance(s, int)) if _all_known(sizes) else None


def rooted_in_constant(value: ir.Value | None) -> bool:
    """Whether a value is a constant, or one that was moved, quantized or dequantized."""
    while value is not None and constant_of(value) is None:
        node = value.producer()
        if node is None or not (node.op_type in MOVES or "uantize" in node.op_type):
            return False
        value = node.inputs[0] if node.inputs else None
    return value is not None


def _all_known(sizes: tuple[int | ir.SymbolicDim, ...]) -> bool:
    return all(isinstance(size, int) for size in sizes)


def _summary(value: ir.Value) -> Numbers | None:
    tensor = constant_of(value)
    if tensor is None:
        return None
    array = tensor.numpy().astype(np.float64)
    if array.size == 0:
        return Numbers(0, float("nan"), float("nan"))
    return Numbers(array.size, float(array.min()), float(array.max()))
