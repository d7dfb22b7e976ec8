"""Groups of timesteps: parts of the schedule for which statistics are kept apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final

import torch

__all__ = ["boundaries_for", "group_of", "timestep_input", "timestep_of"]

_NAME: Final = "timestep"


def boundaries_for(timesteps: Sequence[float], groups: int) -> tuple[float, ...]:
    """Divides a schedule into groups of consecutive steps, as equal in number as they can be.

    Args:
        timesteps: Of every step that is run; repeated ones count once.
        groups: How many; fewer come out where there are fewer timesteps.

    Returns:
        Midpoints between neighbouring groups, in falling order. Group 0 holds the largest timesteps, which
        are the first steps of almost every schedule; group i holds those in (boundaries[i],
        boundaries[i - 1]].
    """
    falling = sorted(set(timesteps), reverse=True)
    count = max(1, min(groups, len(falling)))
    starts = [len(falling) * group // count for group in range(count + 1)]
    return tuple((falling[end - 1] + falling[end]) / 2 for _, end in pairwise(starts[:-1]))


def group_of(timestep: float, boundaries: Sequence[float]) -> int:
    """The group that a timestep belongs to."""
    return sum(timestep <= boundary for boundary in boundaries)


def timestep_of(value: torch.Tensor | float) -> float:
    """The timestep of a call: its number, or the largest where parts of a batch differ."""
    return float(value.max()) if isinstance(value, torch.Tensor) else float(value)


def timestep_input(calls: Sequence[Mapping[str, torch.Tensor | float]]) -> str | None:
    """Which input of a graph tells the timestep.

    Args:
        calls: The inputs of all calls in one run of the pipeline, those of rank 0 and 1 alone.

    Returns:
        `timestep` where there is such an input; else the only one whose value changes between the
        calls; None where there is none such, or more than one.
    """
    if any(_NAME in call for call in calls):
        return _NAME
    values: dict[str, set[float]] = {}
    for call in calls:
        for name, value in call.items():
            if not isinstance(value, torch.Tensor) or value.numel():
                values.setdefault(name, set()).add(timestep_of(value))
    changing = [name for name, found in values.items() if len(found) > 1]
    return changing[0] if len(changing) == 1 else None
