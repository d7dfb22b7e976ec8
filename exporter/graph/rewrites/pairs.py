"""Complex tensors as pairs of real ones: what operators on them are given, and what adds their nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import torch
from torch.fx import Node

__all__ = ["REAL_DTYPES", "Calls", "Number", "Pair", "mapped"]

aten = torch.ops.aten

REAL_DTYPES: Final[Mapping[torch.dtype, torch.dtype]] = MappingProxyType(
    {
        torch.complex32: torch.float16,
        torch.complex64: torch.float32,
        torch.complex128: torch.float64,
    }
)
"""The type of the parts of complex numbers."""

Number = complex | float | int


@dataclass(frozen=True)
class Pair:
    """A complex tensor, or a list of some.

    Attributes:
        real: The node of its real part.
        imaginary: That of its imaginary part, of the same shape and type.
    """

    real: Node
    imaginary: Node


class Calls:
    """Adds operators in front of the node that is replaced.

    Args:
        add: Adds a call of an overload with its arguments and keywords.
        node: What is replaced.
    """

    def __init__(self, add: Callable[..., Node], node: Node) -> None:
        self._add = add
        self.node = node

    def __call__(self, op: Any, *args: Any, **kwargs: Any) -> Node:
        """A new node."""
        return self._add(op, args, kwargs)

    @property
    def dtype(self) -> torch.dtype | None:
        """Type of what the replaced node makes; of the parts where that is complex, None for no tensor."""
        value = self.node.meta.get("val")
        if not isinstance(value, torch.Tensor):
            return None
        return REAL_DTYPES.get(value.dtype, value.dtype)

    @property
    def is_complex(self) -> bool:
        """Whether the replaced node makes complex numbers."""
        value = self.node.meta.get("val")
        first = value[0] if isinstance(value, list | tuple) and value else value
        return isinstance(first, torch.Tensor) and first.is_complex()

    def lifted(self, value: Any) -> Pair:
        """A pair, with an imaginary part of zeros where the value is a real tensor."""
        if isinstance(value, Pair):
            return value
        return Pair(value, self(aten.zeros_like.default, value))


def mapped(function: Callable[[Any], Any], value: Any) -> Any:
    """Nested arguments with a function applied to each of them."""
    if isinstance(value, dict):
        return {key: mapped(function, one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(mapped(function, one) for one in value)
    return function(value)
