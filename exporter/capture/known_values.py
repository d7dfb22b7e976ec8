"""The values of a tensor as JSON has them: nested lists, and for a large tensor of equal values the one value."""

from __future__ import annotations

from typing import Any, Final

import torch

__all__ = ["LISTED_LIMIT", "are_alike", "as_values", "has_values"]

LISTED_LIMIT: Final = 1 << 14
"""Elements of a tensor whose values are listed: masks, lengths, positions."""


def as_values(tensor: torch.Tensor) -> Any:
    """The values: a number, nested lists, or `{"all": value, "shape": [...]}` for a large tensor that holds one value."""
    if tensor.numel() <= LISTED_LIMIT or not are_alike(tensor):
        return tensor.tolist()
    return {"all": tensor.flatten()[0].item(), "shape": list(tensor.shape)}


def has_values(tensor: Any, values: Any) -> bool:
    """Whether something is a tensor with these values, which are a tensor or what `as_values` makes of one."""
    if not isinstance(tensor, torch.Tensor):
        return False
    if isinstance(values, torch.Tensor):
        return torch.equal(tensor, values)
    if not isinstance(values, dict):
        return bool(tensor.tolist() == values)
    return list(tensor.shape) == values["shape"] and bool((tensor == values["all"]).all())


def are_alike(tensor: torch.Tensor) -> bool:
    """Whether a tensor holds one value, everywhere."""
    return tensor.numel() > 0 and bool((tensor == tensor.flatten()[0]).all())
