"""Where to divide the schedule: a shortest path over its groups of timesteps, at a price for what is spent.

Calibration keeps statistics of the schedule's groups apart; a division joins neighbouring ones into segments that share
ranges. Every part takes in each segment the option that is best there. Noise is weighted over the steps by what the analysis
says of them; no policy of early or late steps stands here. In a few segments only: each is a scale more in the artifact.

With a price on what is spent, segments do not depend on each other, and the best division is a shortest path. The least price
that keeps the bounds is found by halving (Lagrange multipliers; Everett 1963). What is found is the best for what it spends.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from qdx.exporter.errors import TargetRefusal

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

__all__ = ["Edges", "Timed", "divide", "equal_edges", "range_ratios", "shared_range_noise", "spent"]

_HALVINGS: Final = 60
_CLOSE: Final = 1e-6
"""How near the price comes to the least one, relative."""

Edges = tuple[int, ...]
"""From 0 to the number of the calibration's groups, rising: segment k is from the k-th edge to the next."""


@dataclass(frozen=True, eq=False)
class Timed:
    """A part whose inputs may differ over the schedule.

    Attributes:
        noise: Of segments by option, as it counts: [from, to, options], infinite where `to` is not behind `from`.
        costs: What each option spends of each bound over the whole schedule, as shares of the bound: [options, bounds].
    """

    noise: Numbers
    costs: Numbers


def shared_range_noise(noise: Numbers, low: Numbers, high: Numbers) -> Numbers:
    """Returns the noise of groups of timesteps that share ranges: [from, to], infinite where `to` is not behind `from`.

    A range wider than another makes its grid coarser in proportion: noise of rounding is step² / 12 (Bennett 1948), so that it
    grows with the square of the width.

    Args:
        noise: Of each group with one range for all of them, weighted as it counts: [groups].
        low: Least value of each input: [inputs, groups]. Ranges hold zero.
        high: Greatest value.
    """
    groups = len(noise)
    found = np.full((groups, groups + 1), np.inf)
    for first in range(groups):
        found[first, first + 1 :] = np.cumsum(noise[first:])
    return found * range_ratios(low, high)


def range_ratios(low: Numbers, high: Numbers) -> Numbers:
    """Returns by how much noise shrinks where a segment has ranges of its own, mean over inputs: [from, to]; 1 where there is none.

    Args:
        low: As for `shared_range_noise`.
        high: Likewise.
    """
    groups = low.shape[1]
    low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
    whole = np.maximum(high.max(1) - low.min(1), 1e-30)
    found = np.ones((groups, groups + 1))
    for first in range(groups):
        tops = np.maximum.accumulate(high[:, first:], axis=1)
        bottoms = np.minimum.accumulate(low[:, first:], axis=1)
        found[first, first + 1 :] = (((tops - bottoms) / whole[:, None]) ** 2).mean(0)
    return found


def divide(parts: Sequence[Timed], *, segments: int) -> Edges:
    """Returns the division of least noise that keeps every bound; every part chooses its own option in each segment.

    Args:
        parts: What chooses; each with the same groups of timesteps.
        segments: Most segments.

    Raises:
        TargetRefusal: Nothing keeps the bounds.
    """
    cheapest, _ = _path(parts, segments, np.inf)
    if (spent(parts, cheapest, np.inf) > 1 + 1e-9).any():
        raise TargetRefusal(
            f"the budget cannot be met over the schedule in {segments} groups of timesteps",
            hint="allow options with fewer bits, or more",
        )
    low, high = 0.0, 1.0
    best, _ = _path(parts, segments, low)
    if (spent(parts, best, low) <= 1 + 1e-9).all():
        return best
    scale = max(float(_least(part, 0.0)[0][np.isfinite(part.noise[:, :, 0])].max()) for part in parts)  # fmt: skip
    high = scale or 1.0
    while (spent(parts, best := _path(parts, segments, high)[0], high) > 1 + 1e-9).any():
        low, high = high, high * 8
    for _ in range(_HALVINGS):
        if high - low <= _CLOSE * high:
            break
        middle = (low + high) / 2
        edges, _ = _path(parts, segments, middle)
        if (spent(parts, edges, middle) > 1 + 1e-9).any():
            low = middle
        else:
            high, best = middle, edges
    return best


def spent(parts: Sequence[Timed], edges: Edges, price: float) -> Numbers:
    """Returns the share of each bound that a division spends at a price; an infinite one takes the cheapest options."""
    groups = edges[-1]
    total = np.zeros(parts[0].costs.shape[1])
    for part in parts:
        _, options = _least(part, price)
        for first, end in itertools.pairwise(edges):
            total += part.costs[options[first, end]] * ((end - first) / groups)
    return total


def equal_edges(groups: int, segments: int) -> Edges:
    """Returns the division into segments as equal as they can be."""
    return tuple(groups * number // segments for number in range(segments + 1))


def _least(part: Timed, price: float) -> tuple[Numbers, NDArray[np.int_]]:
    """The least noise with its price of each segment, and the option that has it."""
    groups = len(part.noise)
    length = np.arange(groups + 1)[None] - np.arange(groups)[:, None]
    price_each = part.costs.sum(1) / groups
    dear = np.maximum(length, 0)[:, :, None] * price_each
    there = np.isfinite(part.noise)
    noise = np.where(there, part.noise, 0.0)
    total = np.where(there, dear if np.isinf(price) else noise + price * dear, np.inf)
    options = total.argmin(2)
    return np.take_along_axis(total, options[:, :, None], 2)[:, :, 0], options


def _path(parts: Sequence[Timed], segments: int, price: float) -> tuple[Edges, float]:
    """The edges of least noise at a price, and that; of equal ones those with fewer segments, then the earlier."""
    total = sum(_least(part, price)[0] for part in parts)
    assert isinstance(total, np.ndarray)
    groups = len(total)
    reached = [np.full(groups + 1, np.inf)]
    reached[0][0] = 0.0
    came: list[NDArray[np.int_]] = []
    for _ in range(min(segments, groups)):
        ways = reached[-1][:groups, None] + total
        came.append(ways.argmin(0))
        reached.append(ways.min(0))
    best = min(range(1, len(reached)), key=lambda count: (float(reached[count][groups]), count))
    edges = [groups]
    for count in range(best, 0, -1):
        edges.append(int(came[count - 1][edges[-1]]))
    return tuple(reversed(edges)), float(reached[best][groups])
