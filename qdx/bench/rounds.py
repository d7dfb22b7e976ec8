"""Turns: in each round every contender makes one call, so that a change of the machine's load meets all alike."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from qdx.exporter.progress import Task

__all__ = ["WARM_UP_ROUNDS", "Taken", "take_turns"]

WARM_UP_ROUNDS: Final = 2
# The threads of a runtime may spin for a while after a call, and whoever came next would pay for it.
_PAUSE_S: Final = 0.1


@dataclass(frozen=True)
class Taken:
    """What one call, or several, took.

    Attributes:
        wall_s: Seconds on the clock.
        cpu_s: Processor seconds of all threads: on a loaded machine they tell more than the clock, but threads that
            wait actively count too.
    """

    wall_s: float
    cpu_s: float


def take_turns(
    calls: Mapping[str, Callable[[int], Taken]],
    *,
    rounds: int,
    inputs: int,
    task: Task,
    pause_s: float = _PAUSE_S,
) -> dict[str, list[Taken]]:
    """Runs the calls in turns, each round in an order of its own, after two rounds of warming up.

    Args:
        calls: By contender: runs a call with the inputs of that number.
        rounds: That count.
        inputs: How many different inputs there are; all contenders have the same in one round.
        task: Told of every call.
        pause_s: Before each call.

    Returns:
        By contender, one for each round.
    """
    found: dict[str, list[Taken]] = {name: [] for name in calls}
    orders = _orders(list(calls))
    for number in range(-WARM_UP_ROUNDS, rounds):
        for name in orders():
            time.sleep(pause_s)
            taken = calls[name](number % inputs)
            task.advance(1)
            if number >= 0:
                found[name].append(taken)
    return found


def _orders(names: Sequence[str]) -> Callable[[], list[str]]:
    """Orders of the names, the same ones in every run."""
    source = random.Random(0)  # noqa: S311 - chooses an order
    return lambda: source.sample(names, len(names))
