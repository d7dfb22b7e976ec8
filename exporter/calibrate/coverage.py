"""Coverage: which groups of timesteps the recorded ranges have values of."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qdx.exporter.calibrate.ranges import Ranges

__all__ = ["coverage"]


def coverage(ranges: Ranges) -> dict[str, dict[str, int]]:
    """By `component.method`: how many groups of timesteps there are, and how many have values everywhere.

    Graphs of which nothing was observed are left out.
    """
    found = {}
    for where, graph in ranges.graphs.items():
        if not graph.tensors:
            continue
        groups = range(len(graph.boundaries) + 1)
        seen = sum(all(int(t.count[group]) > 0 for t in graph.tensors) for group in groups)
        found[where] = {"timestep_groups": len(groups), "timestep_groups_seen": seen}
    return found
