"""PyTorch's Adam with a falling rate for each tensor and least values, whose whole state can be stored and taken up again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import torch

__all__ = ["Adam"]

_EPSILON: Final = 1e-12
"""Beside the root of mean squared gradients, which are small where a loss is an average."""
_KEPT: Final = ("step", "exp_avg", "exp_avg_sq")
"""What the optimizer knows of a tensor."""


class Adam:
    """Steps down the gradients of some tensors.

    Args:
        leaves: The tensors, by name; they are changed in place.
        rates: Of each, the length of the first steps.
        least: Of some, what their elements never fall below.
        steps: In all; rates fall to zero as half a cosine does (Loshchilov and Hutter, "SGDR", 2017).

    Attributes:
        done: Steps that were taken.
    """

    def __init__(
        self,
        leaves: Mapping[str, torch.Tensor],
        rates: Mapping[str, float],
        least: Mapping[str, torch.Tensor],
        *,
        steps: int,
    ) -> None:
        self._leaves = dict(leaves)
        self._rates = [rates[name] for name in leaves]
        self._least = dict(least)
        self._steps = steps
        self._adam = torch.optim.Adam([{"params": [leaf]} for leaf in leaves.values()], eps=_EPSILON)  # fmt: skip
        self.done = 0

    def step(self) -> None:
        """Takes a step by the gradients that the tensors have, and drops these."""
        falling = (1 + math.cos(math.pi * self.done / self._steps)) / 2
        for group, rate in zip(self._adam.param_groups, self._rates, strict=True):
            group["lr"] = rate * falling
        self._adam.step()
        self._adam.zero_grad()
        with torch.no_grad():
            for name, least in self._least.items():
                self._leaves[name].clamp_(min=least)
        self.done += 1

    def state(self) -> dict[str, torch.Tensor]:
        """All that the steps to come depend on, on the processor."""
        found = {"done": torch.tensor([self.done])}
        for name, leaf in self._leaves.items():
            found[f"leaf.{name}"] = leaf.detach().cpu()
            known = self._adam.state.get(leaf, {})
            found |= {f"{part}.{name}": known[part].detach().cpu() for part in known}
        return found

    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """Goes on from where a state was taken, of the same tensors."""
        self.done = int(state["done"])
        with torch.no_grad():
            for name, leaf in self._leaves.items():
                leaf.copy_(state[f"leaf.{name}"])
                known = {part: state.get(f"{part}.{name}") for part in _KEPT}
                self._adam.state[leaf] = {
                    part: one.clone() if part == "step" else one.to(leaf.device, copy=True)
                    for part, one in known.items()
                    if one is not None
                }
