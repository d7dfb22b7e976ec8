"""Copies of components that own nothing but their state: what runs on one leaves nothing behind in another."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from qdx.exporter.capture.left_behind import as_before, handed_back
from qdx.exporter.errors import QdxError, TargetRefusal, first_line

__all__ = ["copy_of"]


def copy_of(module: nn.Module, *, name: str) -> nn.Module:
    """A copy with the same parameters, buffers and tensors, and with all else its own; nothing routes its methods.

    Args:
        module: A component, or a part of one.
        name: The component's, for the message.

    Raises:
        TargetRefusal: An object in it cannot be copied.
    """
    memo: dict[int, Any] = dict(handed_back(module))
    for part in module.modules():
        own = (*part.parameters(recurse=False), *part.buffers(recurse=False), *vars(part).values())
        memo |= {id(value): value for value in own if isinstance(value, torch.Tensor)}
    try:
        copied = copy.deepcopy(module, memo)
        as_before(copied)
        for part in copied.modules():
            for key, value in list(vars(part).items()):
                if hasattr(value, "behind"):
                    _unroute(part, key, value, memo)
    except QdxError:
        raise
    except Exception as error:  # whatever a part holds copies itself
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise TargetRefusal(
            f"`{name}`: its state cannot be copied: {reason}",
            hint="remove what cannot be copied from the module, such as an open file or a lock",
        ) from error
    return copied


def _unroute(part: nn.Module, key: str, value: Any, memo: dict[int, Any]) -> None:
    """Puts back what a routed method stands before; without one the class's own method is found again."""
    while hasattr(value, "behind"):
        value = value.behind
    if value is None:
        vars(part).pop(key)
    else:
        vars(part)[key] = copy.deepcopy(value, memo)
