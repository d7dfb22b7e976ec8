"""Which steps of which sample are observed: a share that comes to every step of the schedule."""

from __future__ import annotations

from fractions import Fraction

__all__ = ["observed_steps"]


def observed_steps(steps: int, samples: int, share: float) -> tuple[frozenset[int], ...]:
    """The steps of each sample that are observed; the others only compute, to lead to the next ones.

    Every step is observed in equally many samples, one at least, and neighbouring steps in different ones. So the
    statistics cover the whole schedule, whatever the share, and each sample bears the same part of the work.

    Args:
        steps: Of the schedule.
        samples: Number of pipeline calls.
        share: Of all steps of all samples, above 0 to 1; rounded up to whole samples.

    Returns:
        Numbers of steps, from 0, by sample.

    >>> [sorted(chosen) for chosen in observed_steps(6, 4, 0.5)]
    [[0, 2, 4], [1, 3, 5], [0, 2, 4], [1, 3, 5]]
    """
    each = max(1, -(-Fraction(str(share)) * samples // 1))
    chosen: list[set[int]] = [set() for _ in range(samples)]
    for step in range(steps):
        for turn in range(int(each)):
            chosen[(step + turn * samples // int(each)) % samples].add(step)
    return tuple(frozenset(found) for found in chosen)
