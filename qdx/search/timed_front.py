"""A front whose times are measured: what is no faster than a point of less noise does not stay."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from qdx.exporter.errors import UsageError
from qdx.search.pareto import APART, Front, Point

if TYPE_CHECKING:
    from qdx.search.tools import TakeMs

__all__ = ["check_time_front", "timed_front"]

_COST: Final = "latency_ms"


def check_time_front(prefer: str, *, timed: bool) -> None:
    """Refuses to time a front that is over another cost, or that nothing can time.

    Args:
        prefer: The cost that the front is over.
        timed: Whether something times plans.

    Raises:
        UsageError: It cannot be timed.
    """
    if prefer != _COST:
        raise UsageError(
            f"--time-front: the front is over {prefer}", hint=f"give --prefer {_COST} too"
        )
    if not timed:
        raise UsageError(
            "--time-front: nothing times plans here",
            hint="it needs an analysis with measured times (`qdx analyze --latency measured`), and no --predicted",
        )


def timed_front(front: Front, take_ms: TakeMs) -> Front:
    """Times all points in turns, and keeps those that are faster than every point of less noise.

    Faster means by more than one artifact differs from one opening to the next, see `APART`.

    Args:
        front: Over `latency_ms`.
        take_ms: What times assignments by name.

    Returns:
        It by rising times, as measured.
    """
    if not front.points:
        return front
    taken = take_ms({str(n): point.assignment for n, point in enumerate(front.points)})
    timed = [replace(point, taken_ms=taken[str(n)]) for n, point in enumerate(front.points)]
    kept, least_ms = list[Point](), math.inf
    for point in sorted(timed, key=lambda one: (-one.sqnr_db(), one.taken_ms)):
        assert point.taken_ms is not None
        if point.taken_ms * APART[_COST] <= least_ms:
            kept.append(point)
            least_ms = point.taken_ms
    return Front(front.cost, tuple(reversed(kept)))
