"""Which precision a TensorRT-bound model asks for, operation by operation, as long as no engine says what runs.

In a strongly typed network the types of the file are the types that TensorRT computes in: an operation whose
inputs all come straight from dequantizers is a low-precision one. Whether a kernel of that type exists for the
shapes at hand is known to the builder alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import onnx_ir as ir

from qdx.backends.contract import KernelExecution
from qdx.backends.onnx.site_names import SiteNames

__all__ = ["audit_model"]

_COMPUTES: Final = frozenset(["Conv", "ConvTranspose", "Gemm", "MatMul"])


def audit_model(model: Path) -> tuple[KernelExecution, ...]:
    """The operations of a model file that the lowering wrote; weights stay on disk."""
    names = SiteNames(model)
    found = []
    for node in ir.load(model).graph:
        if node.op_type in _COMPUTES:
            name = str(node.name)
            found.append(KernelExecution(name, node.op_type, _precision(node), names.sites(name)))
    return tuple(found)


def _precision(node: ir.Node) -> str:
    """The narrow type if both factors are dequantized in it; otherwise the type of the first one."""
    kinds = [_narrow_type(value) for value in node.inputs[:2]]
    if None not in kinds and len(set(kinds)) == 1:
        return _name(kinds[0])
    return _name(node.outputs[0].dtype)


def _narrow_type(value: ir.Value | None) -> ir.DataType | None:
    producer = None if value is None else value.producer()
    if producer is None or producer.op_type != "DequantizeLinear":
        return None
    integers = producer.inputs[0]
    return None if integers is None else integers.dtype


def _name(dtype: ir.DataType | None) -> str:
    names = {
        ir.DataType.FLOAT: "float32",
        ir.DataType.FLOAT8E4M3FN: "float8_e4m3fn",
        None: "unknown",
    }
    return names.get(dtype) or str(dtype.name).lower() if dtype is not None else "unknown"
