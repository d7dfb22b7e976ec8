"""Least squares in one dimension: the few values that stand for many with the least squared error.

Lloyd's algorithm (https://doi.org/10.1109/TIT.1982.1056489) on sorted points: a cluster is a run of them, so that
prefix sums give its mean at once, whatever the number of points. Everything is float64 and of a fixed order: the
result depends on the points alone, not on a seed or on the number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch

__all__ = ["Points", "centres"]

_ROUNDS: Final = 50
"""Rounds of Lloyd's algorithm at most; it stops where no point changes its cluster any more."""
_SETTLED: Final = 1e-4
"""It also stops where a round takes less than this part from no row's squared error."""


@dataclass(frozen=True)
class Points:
    """Weighted points, row by row in rising order.

    Attributes:
        values: float64 [rows, points]; equal ones may follow each other.
        counts: float64 [rows, points + 1], how many elements the first points stand for.
        sums: Likewise, the sum of these elements.
        squares: Likewise, the sum of their squares.
    """

    values: torch.Tensor
    counts: torch.Tensor
    sums: torch.Tensor
    squares: torch.Tensor

    @classmethod
    def of(
        cls, values: torch.Tensor, counts: torch.Tensor, sums: torch.Tensor, squares: torch.Tensor
    ) -> Points:
        """Points from what each of them stands for; all float64 [rows, points]."""
        return cls(values, _prefix(counts), _prefix(sums), _prefix(squares))


def centres(points: Points, number: int) -> torch.Tensor:
    """The centres of clusters of each row with a small squared error, float64 [rows, number] in rising order.

    A row of at most `number` distinct values gets exactly these; the greatest is then repeated. Otherwise
    the start is as dense as the cube root of the points' density, which is best for many centres (Panter and
    Dite 1951, https://doi.org/10.1109/JRPROC.1951.230221). Where centres at equal distances are better than
    what that leads to, they are the start, so that no row ends worse than with a uniform grid of its range.

    Args:
        points: At least one in each row.
        number: How many centres; at least two.
    """
    best = _refined(points, _companded(points, number))
    grid = _uniform(points, number)
    better = _error(points, grid) < _error(points, best)
    if bool(better.any()):
        best = torch.where(better.unsqueeze(1), _refined(points, grid), best)
    return _exact_where_few(points, best)


def _refined(points: Points, start: torch.Tensor) -> torch.Tensor:
    """Centres after rounds of Lloyd's algorithm, none of which adds error."""
    centre = start
    least: torch.Tensor | None = None
    previous: torch.Tensor | None = None
    for _ in range(_ROUNDS):
        cuts = _cuts(points, centre)
        if previous is not None and torch.equal(cuts, previous):
            break
        count, mean, spread = _clusters(points, cuts)
        error = spread.sum(dim=1)  # with the means as centres, which the next lines take
        centre = torch.where(count > 0, mean, centre)
        if bool((count == 0).any()):
            centre = _resettled(points, cuts, count, centre, spread)
        elif least is not None and bool((least - error <= _SETTLED * least).all()):
            break
        least, previous = error, cuts
    return centre


def _error(points: Points, centre: torch.Tensor) -> torch.Tensor:
    """Each row's squared error, [rows]."""
    _, _, spread = _clusters(points, _cuts(points, centre), around=centre)
    return spread.sum(dim=1)


def _cuts(points: Points, centre: torch.Tensor) -> torch.Tensor:
    """Where clusters end, int64 [rows, number + 1]; a point halfway between two centres is the lower one's."""
    middle = (centre[:, 1:] + centre[:, :-1]) / 2
    inner = torch.searchsorted(points.values, middle, right=True)
    ends = torch.zeros(len(inner), 1, dtype=torch.int64)
    return torch.cat([ends, inner, ends + points.values.shape[1]], dim=1)


def _clusters(
    points: Points, cuts: torch.Tensor, *, around: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Elements of each cluster, their mean, and the sum of squared distances from it or from `around`."""
    count, total, square = (
        prefix.gather(1, cuts).diff(dim=1)
        for prefix in (points.counts, points.sums, points.squares)
    )
    mean = total / count.clamp(min=1)
    middle = mean if around is None else around
    spread = square - 2 * middle * total + middle * middle * count
    return count, mean, spread.clamp(min=0)


def _resettled(
    points: Points,
    cuts: torch.Tensor,
    count: torch.Tensor,
    centre: torch.Tensor,
    spread: torch.Tensor,
) -> torch.Tensor:
    """Centres whose clusters are empty, moved to the ends of the clusters of most error, which never adds any."""
    worst = spread.argsort(dim=1, descending=True, stable=True)
    empty = count == 0
    rank = (empty.cumsum(dim=1) - 1).clamp(min=0)
    chosen = worst.gather(1, rank)
    low = points.values.gather(1, cuts.gather(1, chosen).clamp(max=points.values.shape[1] - 1))
    high = points.values.gather(1, (cuts.gather(1, chosen + 1) - 1).clamp(min=0))
    here = centre.gather(1, chosen)
    far = torch.where(high - here > here - low, high, low)
    useful = empty & (spread.gather(1, chosen) > 0)
    return torch.where(useful, far, centre).sort(dim=1).values


def _companded(points: Points, number: int) -> torch.Tensor:
    """Centres as dense as the cube root of the density of points."""
    counts = points.counts.diff(dim=1)
    gaps = points.values.diff(dim=1)
    shared = (counts[:, 1:] + counts[:, :-1]) / 2
    measure = _prefix(shared ** (1 / 3) * gaps ** (2 / 3))
    share = (torch.arange(number, dtype=torch.float64) + 0.5) / number
    place = torch.searchsorted(measure, measure[:, -1:] * share)
    return points.values.gather(1, place.clamp(max=points.values.shape[1] - 1))


def _uniform(points: Points, number: int) -> torch.Tensor:
    """Centres at equal distances from the least value, or zero, to the greatest, or zero."""
    low = points.values[:, :1].clamp(max=0)
    high = points.values[:, -1:].clamp(min=0)
    share = torch.arange(number, dtype=torch.float64) / (number - 1)
    return low + (high - low) * share


def _exact_where_few(points: Points, best: torch.Tensor) -> torch.Tensor:
    """The distinct values themselves in rows that have no more of them than centres."""
    number = best.shape[1]
    fresh = torch.ones_like(points.values, dtype=torch.bool)
    fresh[:, 1:] = points.values.diff(dim=1) != 0
    rank = fresh.cumsum(dim=1) - 1
    few = rank[:, -1] < number
    if not bool(few.any()):
        return best
    values = points.values[few]
    exact = values[:, -1:].expand(-1, number).clone()
    exact.scatter_(1, rank[few], values)
    best = best.clone()
    best[few] = exact
    return best


def _prefix(values: torch.Tensor) -> torch.Tensor:
    """Sums of the first entries of each row, from none of them to all."""
    start = torch.zeros(len(values), 1, dtype=values.dtype)
    return torch.cat([start, values.cumsum(dim=1)], dim=1)
