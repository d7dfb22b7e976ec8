"""Dequantizers in a lowered model: which integers, of which kind, an operation reads."""

from __future__ import annotations

from typing import Any, Final

import onnx_ir as ir

__all__ = ["EIGHT_BITS", "block_of", "dequantized_activation", "stored_weight"]

EIGHT_BITS: Final[tuple[ir.DataType | None, ...]] = (ir.DataType.INT8, ir.DataType.UINT8)


def dequantized_activation(value: ir.Value | None) -> ir.Node | None:
    """The DequantizeLinear that makes an activation from eight-bit integers with one scale, or None."""
    node = _dequantizer(value)
    if node is None or node.inputs[0].is_initializer() or node.inputs[0].dtype not in EIGHT_BITS:
        return None
    return node if _is_scalar(node.inputs[1]) else None


def stored_weight(value: ir.Value | None) -> ir.Node | None:
    """The DequantizeLinear that makes a weight from an initializer of any dtype, or None."""
    node = _dequantizer(value)
    return node if node is not None and node.inputs[0].is_initializer() else None


def block_of(dequantize: ir.Node) -> int:
    """Elements that share a scale along the axis; 0 where there are no blocks."""
    found = dequantize.attributes.get("block_size")
    return 0 if found is None else found.as_int()


def _dequantizer(value: ir.Value | None) -> Any:
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == "DequantizeLinear" else None


def _is_scalar(value: ir.Value | None) -> bool:
    return value is not None and value.shape is not None and len(value.shape) == 0
