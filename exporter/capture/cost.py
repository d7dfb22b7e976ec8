"""A bound on what configurations make libraries allocate: small input, small cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from qdx.exporter.limits import FILLED_TENSOR_LIMIT_BYTES, PARAMETERS_LIMIT

# Functions that fill what they allocate. `empty` and `zeros` take address space, no memory.
_FILLING = frozenset({torch.arange, torch.eye, torch.full, torch.linspace, torch.logspace,
                      torch.ones, torch.rand, torch.randint, torch.randn})  # fmt: skip


class TooCostlyError(Exception):
    """A configuration asks for more than any real model needs."""


class _Bounded(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Any = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        options = kwargs or {}
        if func in _FILLING:
            _check_size(func, args, options)
        return func(*args, **options)


def _check_size(func: Callable[..., Any], args: Any, options: dict[str, Any]) -> None:
    meta = {**options, "device": "meta"}
    meta.pop("generator", None)
    try:
        size_bytes = func(*args, **meta).nbytes
    except Exception:  # noqa: BLE001  # the real call says it better
        return
    if size_bytes > FILLED_TENSOR_LIMIT_BYTES:
        raise TooCostlyError(
            f"{func.__name__} of {size_bytes} bytes, expected at most {FILLED_TENSOR_LIMIT_BYTES}"
        )


@contextmanager
def bounded_tensors() -> Iterator[None]:
    """While active, a tensor that a library fills must not exceed a limit.

    Raises:
        TooCostlyError: From the call that would allocate it, before it does.
    """
    with _Bounded():
        yield


def check_parameter_count(count: int) -> None:
    """Refuses a module of absurdly many layers while it is being built.

    Raises:
        TooCostlyError: More parameters than a safetensors header can list.
    """
    if count > PARAMETERS_LIMIT:
        raise TooCostlyError(f"more than {PARAMETERS_LIMIT} parameters")
