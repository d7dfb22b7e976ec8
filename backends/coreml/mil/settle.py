"""One operation computed, and its results brought to what the program declares of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch

from qdx.backends.coreml.mil.program import MilOperation, MilValue
from qdx.backends.coreml.mil.registry import Kernel
from qdx.exporter.errors import InvalidBundle, first_line

__all__ = ["compute", "settled"]

# What torch, numpy and Python raise of arguments of wrong sizes, ranks, types and texts.
_FAILURES: Final = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)
_INTEGERS: Final = {torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64}


def compute(
    operation: MilOperation, kernel: Kernel, arguments: Mapping[str, Any]
) -> tuple[torch.Tensor, ...]:
    """Computes an operation.

    Raises:
        InvalidBundle: Its arguments do not fit together.
    """
    try:
        return kernel(arguments)
    except _FAILURES as bad:
        raise InvalidBundle(f"{operation}: cannot be computed, {first_line(bad)}") from bad


def settled(operation: MilOperation, results: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Compares shapes with the declared ones and rounds to the declared types.

    Raises:
        InvalidBundle: A result has another shape, or a type that does not round to the declared one.
    """
    if len(results) != len(operation.outputs):
        raise InvalidBundle(
            f"{operation}: gives {len(results)} results, the package declares {len(operation.outputs)}"
        )
    return tuple(
        _settled(operation, value, result)
        for value, result in zip(operation.outputs, results, strict=True)
    )


def _settled(operation: MilOperation, value: MilValue, result: torch.Tensor) -> torch.Tensor:
    declared = value.type
    if declared.shape is not None and not (
        len(declared.shape) == result.ndim
        and all(
            wanted is None or wanted == got
            for wanted, got in zip(declared.shape, result.shape, strict=True)
        )
    ):
        raise InvalidBundle(
            f"{operation}: gives shape {list(result.shape)}, the package declares {declared}"
        )
    wanted = declared.kind.tensor
    if result.dtype == wanted:
        return result
    rounds = result.dtype.is_floating_point and wanted.is_floating_point
    # torch counts and indexes in int64, MIL in the declared integers.
    counts = result.dtype == torch.int64 and wanted in _INTEGERS
    if not rounds and not counts:
        raise InvalidBundle(f"{operation}: gives {result.dtype}, the package declares {declared}")
    return result.to(wanted)
