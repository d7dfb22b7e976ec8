"""What model code reads in ways that torch's tracing does not follow, read in ways that it does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch.overrides import TorchFunctionMode

__all__ = ["Traceable"]

_READS_DATA: Final = torch.Tensor.data.__get__  # type: ignore[attr-defined]  # torch declares it a plain attribute


class Traceable(TorchFunctionMode):
    """While it is entered, `tensor.data` is `tensor.detach()`, and a diagonal is filled by a mask.

    Data and what is detached share memory, so that writes into either are seen by the other. Of the first, a trace knows
    nothing: what is read by it would be a constant without a value, and what is written by it would be lost.

    torch fills a diagonal as memory with strides, which cannot be traced where the matrix is a part of another.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Calls one function of torch."""
        del types
        if func == _READS_DATA:
            return args[0].detach()
        if func is torch.Tensor.fill_diagonal_ and len(args) == 2 and args[0].dim() == 2:
            matrix, value = args
            diagonal = torch.eye(*matrix.shape, dtype=torch.bool, device=matrix.device)
            return matrix.masked_fill_(diagonal, value)
        return func(*args, **(kwargs or {}))
