"""What every training shares: optimiser, schedule, averaged weights, checkpoints."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from samples.progress import Steps, say
from samples.storing import Checkpoint

BUILD = Path("build/train")


@dataclass(frozen=True)
class Plan:
    """How long and how fast a training runs.

    Attributes:
        steps: Number of optimiser steps.
        rate: Greatest learning rate.
        warmup: Steps over which the rate rises to the greatest; then it falls as a cosine.
        decay: Weight decay.
        averaging: Greatest decay of the averaged weights.
        save_every: Steps between two checkpoints.
        check_every: Steps between two calls of the check; 0 for none.
    """

    steps: int
    rate: float
    warmup: int = 100
    decay: float = 0.01
    averaging: float = 0.995
    save_every: int = 200
    check_every: int = 0

    def rate_at(self, step: int) -> float:
        """The learning rate of a step.

        Args:
            step: Its number, from 0.

        Returns:
            The rate, above 0 and at most ``rate``.
        """
        rise = min(1.0, (step + 1) / self.warmup)
        fall = 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.steps)))
        return self.rate * rise * (0.02 + 0.98 * fall)


class Trainer:
    """Trains a module by a loss function; can stop and go on at any checkpoint."""

    def __init__(
        self,
        name: str,
        module: torch.nn.Module,
        plan: Plan,
        loss: Callable[[int], torch.Tensor],
        check: Callable[[int], None] | None = None,
    ) -> None:
        """Prepares a training and takes up its checkpoint if there is one.

        Args:
            name: Name of the sample part; names the checkpoint too.
            module: What is trained, in fp32.
            plan: Length and rates.
            loss: Gives the loss of a step number, a scalar.
            check: Looks at the module, which then holds the averaged weights, after a step number.
        """
        self.name, self.module, self.plan, self.loss, self.check = name, module, plan, loss, check
        self.optimiser = torch.optim.AdamW(
            module.parameters(), lr=plan.rate, weight_decay=plan.decay, betas=(0.9, 0.99)
        )
        self.averaged = {k: v.detach().clone() for k, v in module.state_dict().items()}
        self.checkpoint = Checkpoint(BUILD / name)
        self.step = 0
        self._resume()

    def _resume(self) -> None:
        stored = self.checkpoint.load()
        if stored is None:
            return
        tensors, facts = stored
        self.step = int(str(facts["step"]))
        part = {
            kind: {k[len(kind) + 1 :]: v for k, v in tensors.items() if k.startswith(f"{kind}/")}
            for kind in ("module", "averaged", "first", "second")
        }
        self.module.load_state_dict(part["module"])
        self.averaged = part["averaged"]
        for name, parameter in self.module.named_parameters():
            if name in part["first"]:
                self.optimiser.state[parameter] = {
                    "step": torch.tensor(float(self.step)),
                    "exp_avg": part["first"][name],
                    "exp_avg_sq": part["second"][name],
                }
        say(f"{self.name}: goes on at step {self.step}")

    def save(self) -> None:
        """Writes the checkpoint of the current step."""
        tensors = {f"module/{k}": v for k, v in self.module.state_dict().items()}
        tensors |= {f"averaged/{k}": v for k, v in self.averaged.items()}
        for name, parameter in self.module.named_parameters():
            state = self.optimiser.state.get(parameter)
            if state:
                tensors[f"first/{name}"] = state["exp_avg"]
                tensors[f"second/{name}"] = state["exp_avg_sq"]
        self.checkpoint.save(tensors, {"step": self.step})

    def _average(self) -> None:
        keep = min(self.plan.averaging, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, tensor in self.module.state_dict().items():
                if tensor.is_floating_point():
                    self.averaged[name].lerp_(tensor, 1 - keep)
                else:
                    self.averaged[name].copy_(tensor)

    def _check(self) -> None:
        if self.check is None:
            return
        current = {k: v.detach().clone() for k, v in self.module.state_dict().items()}
        self.module.load_state_dict(self.averaged)
        self.module.eval()
        with torch.no_grad():
            self.check(self.step)
        self.module.train()
        self.module.load_state_dict(current)

    def run(self) -> torch.nn.Module:
        """Trains to the end of the plan.

        Returns:
            The module with the averaged weights, in evaluation mode.
        """
        self.module.train()
        steps = Steps(self.name, self.plan.steps, self.step)
        mean: float | None = None
        for step in steps:
            for group in self.optimiser.param_groups:
                group["lr"] = self.plan.rate_at(step)
            loss = self.loss(step)
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
            self.optimiser.step()
            self.step = step + 1
            self._average()
            value = float(loss.detach())
            mean = value if mean is None else 0.98 * mean + 0.02 * value
            steps.note = f"loss {mean:.5f}"
            if self.step % self.plan.save_every == 0 or self.step == self.plan.steps:
                self.save()
            if self.plan.check_every and self.step % self.plan.check_every == 0:
                self._check()
        self.module.load_state_dict(self.averaged)
        return self.module.eval()
