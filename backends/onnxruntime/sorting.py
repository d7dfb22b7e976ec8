"""Sorting: TopK of all elements, which gives equal ones in their order, as a stable sort does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import onnx_ir as ir
import torch
from onnxscript.values import Opset

__all__ = ["sorting_table"]

aten = torch.ops.aten

# A value of the graph under construction: an `onnx_ir.Value` that onnxscript can compute with.
Value = Any

_TAKEN: Final = frozenset(
    {
        ir.DataType.DOUBLE,
        ir.DataType.FLOAT,
        ir.DataType.FLOAT16,
        ir.DataType.INT32,
        ir.DataType.INT64,
    }
)
"""What the runtime's TopK takes; other whole numbers and flags fit into 64 bits."""


def sorting_table(op: Opset) -> dict[Callable[..., Any], Callable[..., Any]]:
    """The translations of sorts, for `Forms.translations`."""

    def sort_stable(
        self: Value,
        *,
        stable: bool | None = None,  # noqa: ARG001  # TopK always is
        dim: int = -1,
        descending: bool = False,
    ) -> tuple[Value, Value]:
        if not self.shape:
            return op.Identity(self), op.Constant(value_int=0)
        is_taken = self.dtype in _TAKEN
        taken = self if is_taken else op.Cast(self, to=ir.DataType.INT64)
        axis = dim % len(self.shape)
        count = op.Shape(self, start=axis, end=axis + 1)
        values, indices = op.TopK(taken, count, axis=axis, largest=int(descending), sorted=1)
        return values if is_taken else op.CastLike(values, self), indices

    def sort(self: Value, dim: int = -1, descending: bool = False) -> tuple[Value, Value]:  # noqa: FBT001, FBT002  # ATen's signature
        return sort_stable(self, dim=dim, descending=descending)

    return {aten.sort.stable: sort_stable, aten.sort.default: sort}
