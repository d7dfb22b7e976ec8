"""Coverage: which timesteps, and which groups of them, the recorded ranges have values of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qdx.exporter.calibrate.ranges import Ranges

__all__ = ["calibrated_timesteps", "coverage"]


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


def calibrated_timesteps(ranges: Ranges) -> dict[str, dict[str, Any]]:
    """By `component.method`: the input that tells the timestep, the highest, the lowest, and how many there were.

    Graphs without such an input, and those of which nothing was observed, are left out.
    """
    return {
        where: {
            "input": graph.timestep_input,
            "highest": max(graph.timesteps),
            "lowest": min(graph.timesteps),
            "count": len(graph.timesteps),
        }
        for where, graph in ranges.graphs.items()
        if graph.tensors and graph.timesteps and graph.timestep_input is not None
    }
