"""Indexing and some methods of tensors without values on a GPU, which PyTorch refuses where it was built for none."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

__all__ = ["ByOperators"]

_ATEN = torch.ops.aten


class ByOperators(TorchFunctionMode):
    """Calls the operators that indexing and methods stand for."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Calls one function."""
        if func is torch.Tensor.__getitem__:
            return _indexed(*args)
        if func is torch.Tensor.__setitem__:
            tensor, index, value = args
            place = _indexed(tensor, index)
            value = value if isinstance(value, torch.Tensor) else torch.full_like(place, value)
            _ATEN.copy_(place, value)
            return None
        if func.__name__.startswith("conv1d"):  # what knows its shapes calls a method of its input
            args = (_ATEN.clone(args[0], memory_format=torch.contiguous_format), *args[1:])
        try:
            return func(*args, **(kwargs or {}))
        except RuntimeError as error:
            if "not linked with support" not in str(error):
                raise
            return getattr(_ATEN, func.__name__)(*args, **(kwargs or {}))


def _indexed(tensor: torch.Tensor, index: Any) -> torch.Tensor:
    parts = list(index) if isinstance(index, tuple) else [index]
    used = sum(_dimensions(one) for one in parts)
    if not any(one is Ellipsis for one in parts):
        parts.append(Ellipsis)
    spread: list[Any] = []
    for one in parts:
        spread += [slice(None)] * (tensor.dim() - used) if one is Ellipsis else [one]
    dimension = 0
    tensors: list[torch.Tensor | None] = []
    for one in spread:
        if isinstance(one, bool | torch.Tensor | list):
            tensors.append(one if isinstance(one, torch.Tensor) else torch.tensor(one))
            dimension += 1
        elif one is None:
            tensor = tensor.unsqueeze(dimension)
            tensors.append(None)
            dimension += 1
        elif isinstance(one, slice):
            tensor = _ATEN.slice(tensor, dimension, one.start, one.stop, one.step or 1)
            tensors.append(None)
            dimension += 1
        else:
            tensor = tensor.select(dimension, one)
    if any(one is not None for one in tensors):
        return _ATEN.index(tensor, tensors)
    return tensor


def _dimensions(one: Any) -> int:
    if one is None or one is Ellipsis:
        return 0
    if isinstance(one, torch.Tensor) and one.dtype == torch.bool:
        return one.dim()
    return 1
