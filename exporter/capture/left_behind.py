"""What a run of a component leaves behind in the objects beside its modules, such as attention maps in a processor.

Components run on copies, so that nothing stays in them by accident. But a pipeline that reads such a thing must meet it, or
it would go on with what the object held at first, without a word. So tensors that processors keep are handed back; they
have no values, and who reads them is noticed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils import _pytree as pytree

__all__ = ["hand_back"]

_DEPTH_LIMIT: Final = 4


def hand_back(copied: nn.Module, module: nn.Module) -> None:
    """Gives the helpers of a module the fake tensors that those of its copy keep after a run.

    Args:
        copied: A copy on which a method ran.
        module: What was copied.
    """
    for one, other in zip(copied.modules(), module.modules(), strict=True):
        for name, value in _objects(one):
            _hand_back(value, vars(other).get(name), 0)


def _hand_back(kept: Any, original: Any, depth: int) -> None:
    if original is None or depth > _DEPTH_LIMIT or type(kept) is not type(original):
        return
    for name, value in list(vars(kept).items()):
        if any(isinstance(leaf, FakeTensor) for leaf in pytree.tree_leaves(value)):
            vars(original)[name] = value
    for name, value in _objects(kept):
        _hand_back(value, vars(original).get(name), depth + 1)


def _objects(owner: Any) -> Iterator[tuple[str, Any]]:
    """Attributes that are objects with attributes of their own."""
    for name, value in vars(owner).items():
        plain = isinstance(value, nn.Module | torch.Tensor | type | list | tuple | dict)
        if not plain and hasattr(value, "__dict__"):
            yield name, value
