"""Constants, read or decompressed when they are asked for and kept only while memory for that is left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from qdx.backends.coreml.mil.program import MilConstant, TensorType

__all__ = ["Budget", "Lazy", "stored", "tensor_bytes"]


class Budget:
    """How much memory constants may take between calls.

    Args:
        limit_bytes: All of it.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._left_bytes = limit_bytes

    def take(self, size_bytes: int) -> bool:
        """Takes a part of it, if that much is left."""
        if size_bytes > self._left_bytes:
            return False
        self._left_bytes -= size_bytes
        return True


class Lazy:
    """A constant.

    Args:
        make: Reads or computes it: a tensor or a text.
        size_bytes: Of what `make` returns.
        budget: What it may be kept from; the same for all constants of a program.
        depth: How many operations it is computed by, one within the other.
    """

    def __init__(
        self, make: Callable[[], Any], size_bytes: int, budget: Budget, *, depth: int = 0
    ) -> None:
        self.make = make
        self.depth = depth
        self._size_bytes = size_bytes
        self._budget = budget
        self._kept: Any = None

    def __call__(self) -> Any:
        """Returns the value, kept from an earlier call or made anew."""
        if self._kept is not None:
            return self._kept
        value = self.make()
        if self._budget.take(self._size_bytes):
            self._kept = value
        return value


def stored(constant: MilConstant, budget: Budget) -> Lazy:
    """A constant of the package as a tensor of the type that the interpreter computes with."""
    if isinstance(constant.source, str):
        text = constant.source
        return Lazy(lambda: text, 0, budget)

    def make() -> torch.Tensor:
        tensor = torch.from_numpy(constant.array())
        kind = constant.type.kind.tensor
        return tensor if tensor.dtype == kind else tensor.to(kind)

    return Lazy(make, tensor_bytes(constant.type), budget)


def tensor_bytes(declared: TensorType) -> int:
    """Memory of a value of that type; of unknown sizes, more than any budget."""
    count = declared.count
    return 1 << 62 if count is None else count * declared.kind.tensor.itemsize
