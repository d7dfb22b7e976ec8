"""Where to divide the schedule, and how many bits inputs have in each part: one integer program.

Variables x[i, j, k] are 1 where one range of activations serves steps i to j - 1 with option k. They form a path from the
first step to the end: as much flow leaves a step as arrives. Noise is weighted over the steps by what the analysis says
of them; no policy of early or late steps stands here. In a few groups only: every one is a scale more in the artifact.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from qdx.exporter.errors import InternalError, TargetRefusal
from qdx.search.program import minimized

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

__all__ = ["Segment", "divide", "equal_segments", "shared_range_noise", "total_noise"]


@dataclass(frozen=True)
class Segment:
    """Steps that share ranges, and what is done to inputs in them.

    Attributes:
        first: The first step, from 0, the noisiest.
        end: The step behind the last.
        option: Place of the option.
    """

    first: int
    end: int
    option: int


def shared_range_noise(noise: Numbers, low: Numbers, high: Numbers) -> Numbers:
    """Returns the noise of steps that share ranges: [from, to, options], infinite where `to` is not behind `from`.

    A range wider than a step's own makes its grid coarser in proportion: noise of rounding is step² / 12 (Bennett 1948), so that
    it grows with the square of the width.

    Args:
        noise: Of each step with ranges of its own, weighted as it counts: [operations, steps, options].
        low: Least value of the inputs: [operations, steps].
        high: Greatest value.
    """
    _, steps, options = noise.shape
    width = np.maximum(high - low, 1e-30)
    found = np.full((steps, steps + 1, options), np.inf)
    for first in range(steps):
        for end in range(first + 1, steps + 1):
            shared = high[:, first:end].max(1) - low[:, first:end].min(1)
            ratio = (shared[:, None] / width[:, first:end]) ** 2
            found[first, end] = (noise[:, first:end] * ratio[:, :, None]).sum((0, 1))
    return found


def divide(noise: Numbers, cost: Numbers, *, groups: int, most: float) -> tuple[Segment, ...]:
    """Returns the segments of least noise within a cost.

    Args:
        noise: Of segments: [from, to, options], as `shared_range_noise` has it.
        cost: Of an option for one step, such as bit operations: [options].
        groups: Most segments.
        most: Most that all steps together may cost.

    Raises:
        TargetRefusal: The least cost is more.
    """
    from scipy.optimize import LinearConstraint
    from scipy.sparse import csr_array

    steps, _, options = noise.shape
    if steps * float(cost.min()) > most:
        raise TargetRefusal(
            f"{most:.6g} cannot be met over {steps} steps: the least that can is {steps * float(cost.min()):.6g}",
            hint="allow options with fewer bits, or more",
        )
    every = [
        Segment(first, end, option)
        for first in range(steps)
        for end in range(first + 1, steps + 1)
        for option in range(options)
    ]
    values = np.array([noise[one.first, one.end, one.option] for one in every])
    spent = np.array([(one.end - one.first) * cost[one.option] for one in every])
    rows = [one.first for one in every] + [one.end for one in every if one.end < steps]
    columns = [*range(len(every)), *(n for n, one in enumerate(every) if one.end < steps)]
    signs = [1.0] * len(every) + [-1.0] * (len(rows) - len(every))
    flow = csr_array((signs, (rows, columns)), shape=(steps, len(every)))
    arrives = np.zeros(steps)
    arrives[0] = 1.0
    scale = 1000 / max(float(values[np.isfinite(values)].min()) * steps, 1e-300)
    found = minimized(
        np.minimum(values, 1e12 / scale),
        [
            LinearConstraint(flow, arrives, arrives),
            LinearConstraint(np.ones((1, len(every))), 0, groups),
            LinearConstraint(spent[None] / most, -np.inf, 1 + 1e-9),
        ],
        scale=scale,
    )
    if found is None:
        raise InternalError("the solver finds no division, though the least one is within the cost")
    return tuple(one for one, x in zip(every, found, strict=True) if x > 0.5)


def equal_segments(steps: int, groups: int, option: int) -> tuple[Segment, ...]:
    """Returns segments of equal length with one option: what a search is held against."""
    edges = [round(steps * number / groups) for number in range(groups + 1)]
    return tuple(Segment(a, b, option) for a, b in itertools.pairwise(edges) if a < b)


def total_noise(noise: Numbers, segments: tuple[Segment, ...]) -> float:
    """Returns the noise of all segments together."""
    return float(sum(noise[one.first, one.end, one.option] for one in segments))
