"""The table of operations: each module of `operations/` adds its own."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import torch

__all__ = ["Kernel", "Result", "kernels", "operation"]

Result = torch.Tensor | tuple[torch.Tensor, ...]
_Function = TypeVar("_Function", bound=Callable[..., Result])

_SUBJECTS: Final = (
    "activations",
    "attention",
    "binary",
    "compressed",
    "convolution",
    "creation",
    "indexing",
    "linear",
    "normalization",
    "pooling",
    "quantization",
    "reductions",
    "resizing",
    "shapes",
    "slicing",
    "unary",
)
_TABLE: dict[str, Kernel] = {}


@dataclass(frozen=True)
class Kernel:
    """What computes one kind of operation.

    Attributes:
        kind: Such as `conv`.
        function: Takes MIL's parameters by name: tensors, and text as `str`.
        moves: Whether it only moves values. Others are given float16 as float32, so that all
            arithmetic is in float32, and the result is rounded once.
        required: Parameters that must be given.
        known: All parameters that may be given.
        ignored: Those that change nothing here: what the program declares of the result says it, too.
        several: Parameters that are lists.
    """

    kind: str
    function: Callable[..., Result]
    moves: bool
    required: frozenset[str]
    known: frozenset[str]
    ignored: frozenset[str]
    several: frozenset[str]

    def __call__(self, arguments: Mapping[str, Any]) -> tuple[torch.Tensor, ...]:
        """Computes it."""
        used = {
            name: value if self.moves else _widened(value)
            for name, value in arguments.items()
            if name not in self.ignored
        }
        result = self.function(**used)
        results = result if isinstance(result, tuple) else (result,)
        if not all(isinstance(item, torch.Tensor) for item in results):
            raise TypeError("a text, expected a tensor")  # which an operation passed through
        return results


def operation(
    kind: str, *, moves: bool = False, ignores: frozenset[str] = frozenset()
) -> Callable[[_Function], _Function]:
    """Registers a function for a kind of operation; see `Kernel`.

    The function's parameters are MIL's own; those annotated as `list` take several values.
    """

    def register(function: _Function) -> _Function:
        assert kind not in _TABLE, kind
        parameters = inspect.signature(function).parameters.values()
        _TABLE[kind] = Kernel(
            kind,
            function,
            moves,
            required=frozenset(p.name for p in parameters if p.default is p.empty),
            known=frozenset(p.name for p in parameters) | ignores,
            ignored=ignores,
            several=frozenset(p.name for p in parameters if str(p.annotation).startswith("list")),
        )
        return function

    return register


@functools.cache
def kernels() -> Mapping[str, Kernel]:
    """All operations that can be computed, by kind."""
    for subject in _SUBJECTS:
        importlib.import_module(f"qdx.backends.coreml.mil.operations.{subject}")
    return dict(sorted(_TABLE.items()))


def _widened(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.float() if value.dtype == torch.float16 else value
    if isinstance(value, list):
        return [_widened(item) for item in value]
    return value
