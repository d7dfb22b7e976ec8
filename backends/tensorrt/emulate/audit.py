"""Which precision a TensorRT-bound model asks for, operation by operation, as long as no engine says what runs.

In a strongly typed network the types of the file are the types that TensorRT computes in: an operation whose
inputs all come straight from dequantizers is a low-precision one. Whether a kernel of that type exists for the
shapes at hand is known to the builder alone.
"""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from qdx.backends.contract import KernelExecution
from qdx.backends.onnx.site_tables import PRODUCTS, read_tables
from qdx.backends.tensorrt.lint.products import operand
from qdx.backends.tensorrt.model_file import read_model

__all__ = ["audit_model", "quantized_branch"]


def audit_model(model: Path) -> tuple[KernelExecution, ...]:
    """The operations of a model file that the lowering wrote; weights stay on disk.

    Raises:
        InvalidBundle: It is missing, no ONNX model, or one without a table of sites.
    """
    read = read_model(model)
    table, _ = read_tables(read, source=model.name)
    found = []
    for node in read.graph:
        name = str(node.name)
        if node.op_type in PRODUCTS:
            found.append(KernelExecution(name, node.op_type, _precision(node), table.sites(name)))
        elif node.op_type == "Add" and (narrow := quantized_branch(node)) is not None:
            found.append(KernelExecution(name, node.op_type, _name(narrow), table.sites(name)))
    return tuple(found)


def quantized_branch(node: ir.Node) -> ir.DataType | None:
    """The type of the one branch of a residual addition that comes from a dequantizer."""
    kinds = [_narrow_type(value) for value in node.inputs]
    return next((kind for kind in kinds if kind is not None), None) if None in kinds else None


def _precision(node: ir.Node) -> str:
    """The narrow type if both factors are dequantized in it; otherwise the type of the first one."""
    kinds = [_narrow_type(value) for value in node.inputs[:2]]
    if None not in kinds and len(set(kinds)) == 1:
        return _name(kinds[0])
    return _name(node.outputs[0].dtype)


def _narrow_type(value: ir.Value | None) -> ir.DataType | None:
    """The type of what a dequantizer gives an operation, cast at most; blocks of floats reach it through turns too."""
    found = operand(value)
    cast = all(node.op_type == "Cast" for node in found.passed)
    return found.narrow_type if cast or found.in_blocks_of_floats else None


def _name(dtype: ir.DataType | None) -> str:
    names = {
        ir.DataType.FLOAT: "float32",
        ir.DataType.FLOAT8E4M3FN: "float8_e4m3fn",
        ir.DataType.FLOAT4E2M1: "float4_e2m1fn",
        None: "unknown",
    }
    return names.get(dtype) or str(dtype.name).lower() if dtype is not None else "unknown"
