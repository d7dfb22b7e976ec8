"""Times of an analysis as a search counts them: of its groups, of what stands beside them, and between them. Imports no torch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from qdx.analyze.analysis import Analysis

__all__ = ["Times", "times_of"]

_MS: Final = 1e-6
"""Of a nanosecond."""
_FLOAT: Final = 0


@dataclass(frozen=True)
class Times:
    """What a call of each graph takes, in milliseconds.

    Attributes:
        rest_ms: Of what no group has.
        float_ms: Of everything in float.
        reads: By group and option, the type in which inputs are read.
        changes_ms: By two groups, what it takes beside where they read different types.
        beside_float_ms: By group, the same where it reads another type than in float, since neighbours in no group do not.
    """

    rest_ms: float
    float_ms: float
    reads: Mapping[int, tuple[str, ...]]
    changes_ms: Mapping[tuple[int, int], float]
    beside_float_ms: Mapping[int, float]


def times_of(analysis: Analysis) -> Times:
    """The times of an analysis that has some."""
    assert analysis.latency is not None
    group_of = {(g.where, key): g.id for g in analysis.groups for key in g.sites}
    floats_ms = {g.id: g.offers[_FLOAT].latency_ms or 0.0 for g in analysis.groups}
    changes: dict[tuple[int, int], float] = defaultdict(float)
    beside: dict[int, float] = defaultdict(float)
    for table in analysis.latency.graphs:
        for pair in table.neighbours:
            ms = pair.elements * table.change_ns * _MS
            both = {group_of.get((table.where, key)) for key in (pair.maker, pair.reader)}
            found = sorted(one for one in both if one is not None)
            if not ms or (len(found) == 1 and len(both) == 1):
                continue  # of one group, they read one type
            if len(found) == 2:
                changes[found[0], found[1]] += ms
            elif found:
                beside[found[0]] += ms
    float_ms = sum(table.predict_ms({}) for table in analysis.latency.graphs)
    return Times(
        rest_ms=float_ms - sum(floats_ms.values()),
        float_ms=float_ms,
        reads={g.id: analysis.latency.of(g.where).reads for g in analysis.groups},
        changes_ms=dict(sorted(changes.items())),
        beside_float_ms=dict(beside),
    )
