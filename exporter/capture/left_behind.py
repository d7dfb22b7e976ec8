"""What a run of a component leaves behind in the objects beside its modules, such as attention maps in a processor.

Components run on copies, so that nothing stays in them by accident. But a pipeline that reads such a thing must meet it, or
it would go on with what the object held at first, without a word. So tensors that processors keep are handed back; they
have no values, and who reads them is noticed. The next copy begins with what was there before, as the first one did.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils import _pytree as pytree

__all__ = ["as_before", "hand_back", "handed_back"]

_DEPTH_LIMIT: Final = 4
_BEFORE: Final = "_qdx_before"


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
        if name != _BEFORE and next(_fakes(value), None) is not None:
            before = vars(original).setdefault(_BEFORE, {})
            before.setdefault(name, vars(original).get(name))
            vars(original)[name] = value
    for name, value in _objects(kept):
        _hand_back(value, vars(original).get(name), depth + 1)


def handed_back(module: nn.Module) -> dict[int, torch.Tensor]:
    """The fake tensors that were handed back to a module's helpers, by their identity."""
    found: dict[int, torch.Tensor] = {}
    for part in module.modules():
        for helper in _with_before(part, 0):
            for name in vars(helper)[_BEFORE]:
                found |= {id(one): one for one in _fakes(vars(helper)[name])}
    return found


def as_before(module: nn.Module) -> None:
    """Takes from a module's helpers what was handed back to them."""
    for part in module.modules():
        for helper in list(_with_before(part, 0)):
            own = vars(helper)
            own |= own.pop(_BEFORE)


def _with_before(owner: Any, depth: int) -> Iterator[Any]:
    """The helpers to which something was handed back."""
    if depth > _DEPTH_LIMIT:
        return
    for _, value in _objects(owner):
        if _BEFORE in vars(value):
            yield value
        yield from _with_before(value, depth + 1)


def _fakes(value: Any) -> Iterator[FakeTensor]:
    return (leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, FakeTensor))


def _objects(owner: Any) -> Iterator[tuple[str, Any]]:
    """Attributes that are objects with attributes of their own."""
    for name, value in vars(owner).items():
        plain = isinstance(value, nn.Module | torch.Tensor | type | list | tuple | dict)
        if not plain and hasattr(value, "__dict__"):
            yield name, value
