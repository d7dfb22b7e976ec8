"""Errors of the steps of one run added up, as a sampler adds them.

Noise of single steps says what each loses. A run adds the errors themselves: what stays the same from step to step grows with
their number, what changes sign averages out. To first order the error at the end is Σ_t J_t e_t; here J_t is a number, the root
of the step's weight, and errors are those of measured steps, in the dimensions that they were folded into, which are the same
for all steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qdx.exporter.errors import InternalError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

__all__ = ["RunErrors", "split"]


@dataclass(frozen=True)
class RunErrors:
    """How the errors of a graph's moments stand side by side.

    Attributes:
        samples: The run of each moment, in order.
        groups: Its group of timesteps.
    """

    samples: tuple[int, ...]
    groups: tuple[int, ...]

    def summed(self, errors: NDArray[np.floating[Any]]) -> Numbers:
        """The errors of each run added up, side by side.

        Args:
            errors: Of all moments side by side, each with the root of its weight: [moments x dimensions].
        """
        each = self._each(errors)
        runs = sorted(set(self.samples))
        return np.concatenate([each[[s == run for s in self.samples]].sum(0) for run in runs])

    def of_segments(self, errors: NDArray[np.floating[Any]], count: int) -> Numbers:
        """The squared norm of what the moments of a range of groups add up to, over all runs: [from, to].

        Args:
            errors: As for `summed`.
            count: Of groups.
        """
        each = self._each(errors)
        found = np.full((count, count + 1), np.inf)
        for first in range(count):
            found[first, first + 1 :] = 0.0
        for run in sorted(set(self.samples)):
            until = np.zeros((count + 1, each.shape[1]))
            for sample, group, one in zip(self.samples, self.groups, each, strict=True):
                if sample == run:
                    until[group + 1] += one
            until = until.cumsum(0)
            for first in range(count):
                between = until[first + 1 :] - until[first]
                found[first, first + 1 :] += np.einsum("ij,ij->i", between, between)
        return found

    def _each(self, errors: NDArray[np.floating[Any]]) -> Numbers:
        moments = len(self.samples)
        if errors.size % moments:
            raise InternalError(f"{errors.size} errors of {moments} moments: not as many of each")
        return np.asarray(errors, np.float64).reshape(moments, -1)


def split(errors: NDArray[Any], sizes: Mapping[str, int]) -> dict[str, NDArray[Any]]:
    """Returns errors of graphs one after the other by graph.

    Args:
        errors: Of all graphs.
        sizes: How many each has, in order.
    """
    ends = np.cumsum([*sizes.values()])
    if errors.size != int(ends[-1]):
        raise InternalError(f"{errors.size} errors, expected {int(ends[-1])}")
    parts: Sequence[NDArray[Any]] = np.split(errors, ends[:-1])
    return dict(zip(sizes, parts, strict=True))
