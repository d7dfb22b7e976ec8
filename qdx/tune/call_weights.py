"""How much each recorded call counts in a loss: by the part of the schedule that it is of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from qdx.exporter.calibrate.timesteps import timestep_input, timestep_of
from qdx.exporter.errors import UsageError, quoted
from qdx.runtime.tensor_folder import rank_of

if TYPE_CHECKING:
    import torch

__all__ = ["call_weights"]

_MOST_RANK: Final = 1

Calls = Sequence[Mapping[str, "torch.Tensor"]]


def call_weights(calls: Calls, parts: Sequence[float] | None, where: str) -> tuple[float, ...]:
    """What the loss of each call counts, one on average.

    Args:
        calls: Their inputs by name.
        parts: Weights of equal parts of the timesteps that were recorded, the noisiest first; None for equal ones.
        where: The graph, for messages.

    Raises:
        UsageError: No input tells the timestep, or none of the calls counts.
    """
    if parts is None:
        return (1.0,) * len(calls)
    small = [{name: one[name] for name in one if rank_of(one, name) <= _MOST_RANK} for one in calls]
    name = timestep_input(small)
    if name is None:
        raise UsageError(
            f"plan: `tune.timesteps`: no input of {quoted(where)} tells the timestep",
            hint="leave `timesteps` out; all calls then count alike",
        )
    steps = [timestep_of(one[name]) for one in small]
    falling = sorted(set(steps), reverse=True)
    part = {step: parts[place * len(parts) // len(falling)] for place, step in enumerate(falling)}
    found = [part[step] for step in steps]
    mean = sum(found) / len(found)
    if mean <= 0:
        raise UsageError(
            f"plan: `tune.timesteps`: no recorded call of {quoted(where)} is of a part that counts",
            hint="give more of the parts a weight above 0, or take more `tune.calls`",
        )
    return tuple(one / mean for one in found)
