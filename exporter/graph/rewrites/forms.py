"""Forms: how tensors lie in the arrays of artifacts, where that is not as a component takes them.

    form  component                  artifact
    bc1s  [batch, tokens, channels]  [batch, channels, 1, tokens]
    bc11  [batch, channels]          [batch, channels, 1, 1]
    each  one number                 [batch], the number for each entry

A form is a few operators each way, which run on real tensors and stand in graphs alike.
"""

from __future__ import annotations

from typing import Any, Final

import torch

from qdx.exporter.form import Form

__all__ = ["Steps", "apply", "from_artifact", "to_artifact"]

Steps = tuple[tuple[Any, tuple[Any, ...]], ...]
"""Operators, each with what follows the tensor among its arguments."""

aten = torch.ops.aten
_RANKS: Final[dict[Form, tuple[int, ...]]] = {"bc1s": (3,), "bc11": (2,), "each": (0, 1)}


def from_artifact(form: Form, traced: tuple[int, ...]) -> Steps:
    """What makes the component's tensor of the artifact's array.

    Args:
        form: Of the array.
        traced: The component's shape.

    Raises:
        ValueError: The form does not exist for such shapes.
    """
    _check(form, traced)
    if form == "bc1s":
        return ((aten.squeeze.dim, (2,)), (aten.transpose.int, (1, 2)))
    if form == "bc11":
        return ((aten.squeeze.dim, (3,)), (aten.squeeze.dim, (2,)))
    if traced == ():
        return ((aten.select.int, (0, 0)),)
    return ((aten.slice.Tensor, (0, 0, 1)),) if traced == (1,) else ()


def to_artifact(form: Form, traced: tuple[int, ...], batch: int) -> Steps:
    """What makes the artifact's array of the component's tensor.

    Args:
        form: Of the array.
        traced: The component's shape.
        batch: Entries of the batch.

    Raises:
        ValueError: The form does not exist for such shapes.
    """
    _check(form, traced)
    if form == "bc1s":
        return ((aten.transpose.int, (1, 2)), (aten.unsqueeze.default, (2,)))
    if form == "bc11":
        return ((aten.unsqueeze.default, (2,)), (aten.unsqueeze.default, (3,)))
    return ((aten.expand.default, ((batch,),)),)


def apply(steps: Steps, tensor: torch.Tensor) -> torch.Tensor:
    """Runs operators one after the other."""
    for op, rest in steps:
        tensor = op(tensor, *rest)
    return tensor


def _check(form: Form, traced: tuple[int, ...]) -> None:
    if len(traced) not in _RANKS[form]:
        raise ValueError(f"form {form} has no tensors of shape {list(traced)}")
