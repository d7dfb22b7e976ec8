"""Indexing by a mask whose values are known: by the numbers of its places, since a mask alone says no size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes

__all__ = ["KnownMasks", "by_numbers"]

_INDEXING: Final = (torch.Tensor.__getitem__, torch.Tensor.__setitem__)


class KnownMasks(TorchFunctionMode):
    """While it is entered, fake tensors take masks that are not fake."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Calls one function of torch."""
        del types
        known = by_numbers(func, args, lambda mask: not isinstance(mask, FakeTensor))
        return func(*known, **(kwargs or {}))


def by_numbers(
    func: Callable[..., Any], args: tuple[Any, ...], is_known: Callable[[torch.Tensor], bool]
) -> tuple[Any, ...]:
    """The arguments of a function of torch, where it is indexing with numbers in the place of masks that are known."""
    if func not in _INDEXING:
        return args
    tensor, index, *rest = args
    parts = index if isinstance(index, tuple) else (index,)
    if not any(_is_mask(part) and is_known(part) for part in parts):
        return args
    return (tensor, tuple(_numbered(parts, is_known)), *rest)


def _numbered(parts: tuple[Any, ...], is_known: Callable[[torch.Tensor], bool]) -> Iterator[Any]:
    for part in parts:
        if _is_mask(part) and is_known(part):
            with _disable_current_modes():
                yield from part.nonzero(as_tuple=True)
        else:
            yield part


def _is_mask(part: Any) -> bool:
    return isinstance(part, torch.Tensor) and part.dtype == torch.bool
