"""Operations on each element of one tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from qdx.backends.coreml.mil.arguments import number
from qdx.backends.coreml.mil.dtypes import BY_NAME
from qdx.backends.coreml.mil.registry import operation

_ALIASES: Final = {"fp16": "float16", "fp32": "float32"}
# What torch computes under another name, or the same.
_SIMPLE: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "abs": torch.abs,
    "acos": torch.acos,
    "asin": torch.asin,
    "atan": torch.atan,
    "atanh": torch.atanh,
    "ceil": torch.ceil,
    "cos": torch.cos,
    "cosh": torch.cosh,
    "erf": torch.erf,
    "exp": torch.exp,
    "floor": torch.floor,
    "logical_not": torch.logical_not,
    "round": torch.round,  # halves go to the even neighbour
    "sign": torch.sign,
    "sin": torch.sin,
    "sinh": torch.sinh,
    "sqrt": torch.sqrt,
    "square": torch.square,
    "tan": torch.tan,
    "tanh": torch.tanh,
}


def _of_one(function: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    def compute(x: Tensor) -> Tensor:
        return function(x)

    return compute


for _kind, _function in _SIMPLE.items():
    operation(_kind)(_of_one(_function))


@operation("cast")
def cast(x: Tensor, dtype: str) -> Tensor:
    """Integers from floats are cut towards zero; true is what is not zero."""
    kind = BY_NAME[_ALIASES.get(dtype, dtype)]
    if kind.name == "uint16" and x.dtype != torch.bool:
        # Computed in int32 here, so it does not wrap by itself.
        return x.to(torch.int64).bitwise_and(0xFFFF).to(torch.int32)
    return x.to(kind.tensor)


@operation("clip")
def clip(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    return x.maximum(alpha).minimum(beta)


@operation("exp2")
def exp2(x: Tensor) -> Tensor:
    return x.exp2() if x.is_floating_point() else x.double().exp2().to(x.dtype)


@operation("inverse")
def inverse(x: Tensor, epsilon: Tensor | None = None) -> Tensor:
    return (x + number(epsilon, 1e-4)).reciprocal()


@operation("log")
def log(x: Tensor, epsilon: Tensor | None = None) -> Tensor:
    return (x + number(epsilon, 1e-45)).log()


@operation("rsqrt")
def rsqrt(x: Tensor, epsilon: Tensor | None = None) -> Tensor:
    return (x + number(epsilon, 1e-12)).rsqrt()


@operation("threshold")
def threshold(x: Tensor, alpha: Tensor) -> Tensor:
    return x.maximum(alpha)
