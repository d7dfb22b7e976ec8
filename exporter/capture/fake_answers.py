"""What components answer where nothing computes: zeros of the right shapes, found on fake tensors once for each kind of call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.utils import _pytree as pytree

from qdx.exporter.capture.calls import LiveCall
from qdx.exporter.capture.distributions import is_plain, map_tensors
from qdx.exporter.capture.skeleton import Skeleton

__all__ = ["FakeAnswers", "fake_output"]


class FakeAnswers:
    """Answers in zeros; calls that can only have outputs of the same shapes share one run on fake tensors.

    Args:
        skeleton: The pipeline without weights.
    """

    def __init__(self, skeleton: Skeleton) -> None:
        self._skeleton = skeleton
        self._templates: dict[str | None, Any] = {}

    def __call__(self, call: LiveCall) -> Any:
        """What a call is answered."""
        return map_tensors(
            self._template(call), lambda fake: torch.zeros(tuple(fake.shape), dtype=fake.dtype)
        )

    def _template(self, call: LiveCall) -> Any:
        key = _key(call)
        if key in self._templates:
            return self._templates[key]
        found = fake_output(self._skeleton, call)
        if key is not None and is_plain(found):
            self._templates[key] = found
        return found


def _key(call: LiveCall) -> str | None:
    """All that the shapes of an output can depend on; None where an argument is an object that nobody can tell.

    A number that is no whole one, such as a timestep, makes no shape.
    """
    leaves: dict[str, object] = {}
    for name, leaf in call.leaves.items():
        if isinstance(leaf, torch.Tensor):
            leaves[name] = tuple(leaf.shape), leaf.dtype
        elif isinstance(leaf, float):
            leaves[name] = float
        elif leaf is None or isinstance(leaf, bool | int | str):
            leaves[name] = leaf
        else:
            return None
    return repr((call.where, leaves, pytree.tree_structure(call.arguments)))


def fake_output(skeleton: Skeleton, call: LiveCall) -> Any:
    """What a method returns, with fake tensors: its structure, and the shapes in it."""

    def fake(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return torch.empty(tuple(value.shape), dtype=value.dtype)  # inside the mode: a fake
        return value

    with skeleton.mode, torch.no_grad():
        arguments: Mapping[str, Any] = pytree.tree_map(fake, call.arguments)
        return call.original(**arguments)
