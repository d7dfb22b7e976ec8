"""Operations on the elements of two or three tensors, with broadcasting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from qdx.backends.coreml.mil.registry import operation

_SIMPLE: Final[dict[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "add": torch.add,
    "equal": torch.eq,
    "floor_div": torch.floor_divide,
    "greater": torch.gt,
    "greater_equal": torch.ge,
    "less": torch.lt,
    "less_equal": torch.le,
    "logical_and": torch.logical_and,
    "logical_or": torch.logical_or,
    "logical_xor": torch.logical_xor,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "mod": torch.remainder,  # the sign is that of the divisor
    "mul": torch.mul,
    "not_equal": torch.ne,
    "pow": torch.pow,
    "sub": torch.sub,
}


def _of_two(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    def compute(x: Tensor, y: Tensor) -> Tensor:
        return function(x, y)

    return compute


for _kind, _function in _SIMPLE.items():
    operation(_kind)(_of_two(_function))


@operation("real_div")
def real_div(x: Tensor, y: Tensor) -> Tensor:
    """Of integers, the quotient is cut towards zero."""
    if x.is_floating_point() or y.is_floating_point():
        return x / y
    return torch.div(x, y, rounding_mode="trunc")


@operation("select", moves=True)
def select(cond: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(cond, a, b)
