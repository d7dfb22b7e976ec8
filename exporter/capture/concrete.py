"""Values that are known while a graph is traced: computed at once, as Python that reads them needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import _disable_current_modes

__all__ = ["Concrete"]


class Concrete(TorchFunctionMode):
    """While active, a function of known tensors and of nothing else is computed instead of traced.

    Args:
        known: The tensors that are known at first; what is computed of them joins.
    """

    def __init__(self, known: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self._known = {id(tensor): tensor for tensor in known}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Any = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        options = kwargs or {}
        tensors = [t for t in pytree.tree_leaves((args, options)) if isinstance(t, torch.Tensor)]
        if not tensors or not all(id(tensor) in self._known for tensor in tensors):
            return func(*args, **options)
        with _disable_current_modes():
            found = func(*args, **options)
        for leaf in pytree.tree_leaves(found):
            if isinstance(leaf, torch.Tensor) and not isinstance(leaf, FakeTensor):
                self._known[id(leaf)] = leaf
        return found
