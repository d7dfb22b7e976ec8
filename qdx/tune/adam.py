"""Adam with a falling rate, whose whole state can be stored and taken up again: Kingma and Ba, "Adam", 2015, algorithm 1."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import torch

__all__ = ["Adam"]

_FIRST: Final = 0.9
_SECOND: Final = 0.999
_EPSILON: Final = 1e-12
"""Beside the root of mean squared gradients, which are small where a loss is an average."""


class Adam:
    """Steps down the gradients of some tensors.

    Args:
        leaves: The tensors, by name; they are changed in place.
        rates: Of each, the length of the first steps.
        least: Of each, what its elements never fall below; None for no bound.
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
        self._rates = dict(rates)
        self._least = dict(least)
        self._steps = steps
        self._means = {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
        self._squares = {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
        self.done = 0

    def step(self) -> None:
        """Takes a step by the gradients that the tensors have, and drops these."""
        self.done += 1
        falling = (1 + math.cos(math.pi * (self.done - 1) / self._steps)) / 2
        first, second = 1 - _FIRST**self.done, 1 - _SECOND**self.done
        with torch.no_grad():
            for name, leaf in self._leaves.items():
                gradient = leaf.grad
                if gradient is None:
                    continue
                mean, square = self._means[name], self._squares[name]
                mean.lerp_(gradient, 1 - _FIRST)
                square.mul_(_SECOND).addcmul_(gradient, gradient, value=1 - _SECOND)
                spread = (square / second).sqrt_().add_(_EPSILON)
                leaf.addcdiv_(mean, spread, value=-self._rates[name] * falling / first)
                if name in self._least:
                    leaf.clamp_(min=self._least[name])
                leaf.grad = None

    def state(self) -> dict[str, torch.Tensor]:
        """All that the steps to come depend on, on the processor."""
        found = {"done": torch.tensor([self.done])}
        for kind, tensors in self._parts.items():
            found |= {f"{kind}.{name}": one.detach().cpu() for name, one in tensors.items()}
        return found

    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """Goes on from where a state was taken, of the same tensors."""
        self.done = int(state["done"])
        with torch.no_grad():
            for kind, tensors in self._parts.items():
                for name, one in tensors.items():
                    one.copy_(state[f"{kind}.{name}"])

    @property
    def _parts(self) -> dict[str, dict[str, torch.Tensor]]:
        return {"leaf": self._leaves, "mean": self._means, "square": self._squares}
