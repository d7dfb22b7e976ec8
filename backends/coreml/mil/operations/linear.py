"""Products of matrices."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from qdx.backends.coreml.mil.arguments import flag
from qdx.backends.coreml.mil.registry import operation


@operation("linear")
def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return functional.linear(x, weight, bias)


@operation("matmul")
def matmul(
    x: Tensor, y: Tensor, transpose_x: Tensor | None = None, transpose_y: Tensor | None = None
) -> Tensor:
    """Vectors are never transposed."""
    if flag(transpose_x, default=False) and x.ndim > 1:
        x = x.transpose(-1, -2)
    if flag(transpose_y, default=False) and y.ndim > 1:
        y = y.transpose(-1, -2)
    return torch.matmul(x, y)


@operation("einsum")
def einsum(values: list[Tensor], equation: str) -> Tensor:
    result: Tensor = torch.einsum(equation, *values)
    return result
