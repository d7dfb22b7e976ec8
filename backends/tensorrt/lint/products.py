"""Convolutions and matrix products, and the quantizers that their operands come through."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import onnx_ir as ir

from qdx.backends.tensorrt.lint.subject import (
    MOVES,
    Subject,
    attribute,
    is_standard,
    rooted_in_constant,
    sizes_of,
)
from qdx.backends.tensorrt.operators import DOMAIN, MXFP8_DEQUANTIZE

__all__ = ["EIGHT_BITS", "Operand", "Product", "operand", "products"]

EIGHT_BITS: Final = frozenset({ir.DataType.INT8, ir.DataType.FLOAT8E4M3FN})
CONVOLUTIONS: Final = frozenset({"Conv", "ConvTranspose"})


@dataclass(frozen=True)
class Operand:
    """One input of an operator, followed back to where its numbers are made.

    Attributes:
        value: The input itself.
        dequantizer: The node that dequantizes it; None where it is not quantized.
        passed: What moves the numbers between that node and the operator, the nearest first.
        constant: Whether its numbers come from a constant.
    """

    value: ir.Value | None
    dequantizer: ir.Node | None
    passed: tuple[ir.Node, ...]
    constant: bool

    @property
    def narrow_type(self) -> ir.DataType | None:
        """Type that it is quantized to; None where it is not."""
        node = self.dequantizer
        data = None if node is None else node.inputs[0]
        return None if data is None else data.dtype

    @property
    def format(self) -> str:
        """`NVFP4`, `MXFP8`, or else the name of the type that it is quantized to; empty where it is not."""
        node, kind = self.dequantizer, self.narrow_type
        if node is not None and node.op_type == MXFP8_DEQUANTIZE:
            return "MXFP8"
        if kind == ir.DataType.FLOAT4E2M1:
            return "NVFP4"
        return "" if kind is None else kind.name

    @property
    def in_blocks_of_floats(self) -> bool:
        """Whether it is in NVFP4 or MXFP8."""
        return self.format in {"NVFP4", "MXFP8"}


@dataclass(frozen=True)
class Product:
    """A Conv, ConvTranspose, Gemm or MatMul.

    Attributes:
        node: The operator.
        left: Its first input.
        right: Its second input, the weight where it has one.
    """

    node: ir.Node
    left: Operand
    right: Operand

    @property
    def convolves(self) -> bool:
        """Whether it is a convolution."""
        return self.node.op_type in CONVOLUTIONS

    @property
    def weighted(self) -> bool:
        """Whether one operand is a weight."""
        return self.left.constant or self.right.constant

    @property
    def narrow_type(self) -> ir.DataType | None:
        """Type of eight bits or fewer that both operands have; None where they do not."""
        found = self.left.narrow_type
        return found if found == self.right.narrow_type else None

    @property
    def kernel(self) -> tuple[int, ...] | None:
        """Shape of the second operand; None where it is not known."""
        return sizes_of(self.right.value)

    @property
    def reduced_and_outputs(self) -> tuple[int, int] | None:
        """Numbers of inputs and outputs, in channels of a group where it convolves."""
        sizes = self.kernel
        if sizes is None or len(sizes) < 2:
            return None
        if self.convolves:
            outputs, inputs = sizes[:2]
            turned = self.node.op_type == "ConvTranspose"
            return (outputs, inputs) if turned else (inputs, outputs)
        turned = self.node.op_type == "Gemm" and bool(attribute(self.node, "transB", 0))
        return (sizes[-1], sizes[-2]) if turned else (sizes[-2], sizes[-1])


def operand(value: ir.Value | None) -> Operand:
    """Follows an input back to its dequantizer, through what only moves numbers."""
    passed: list[ir.Node] = []
    current = value
    while current is not None:
        node = current.producer()
        if node is None or not (_moves(node) or _dequantizes(node)):
            break
        if _dequantizes(node):
            if len(node.inputs) < 2:
                break  # no operator of ONNX; the rules are for those that are
            return Operand(value, node, tuple(passed), rooted_in_constant(value))
        passed.append(node)
        current = node.inputs[0]
    return Operand(value, None, tuple(passed), rooted_in_constant(value))


def _moves(node: ir.Node) -> bool:
    return node.op_type in MOVES and is_standard(node)


def _dequantizes(node: ir.Node) -> bool:
    standard = node.op_type == "DequantizeLinear" and is_standard(node)
    return standard or (node.domain, node.op_type) == (DOMAIN, MXFP8_DEQUANTIZE)


def products(subject: Subject) -> Iterator[Product]:
    """Every convolution and matrix product, in order."""
    for node in subject.standard("Conv", "ConvTranspose", "Gemm", "MatMul"):
        if len(node.inputs) > 1:
            yield Product(node, operand(node.inputs[0]), operand(node.inputs[1]))
