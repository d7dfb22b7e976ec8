"""Coverage: what the calibration of a bundle has seen, from the record in its manifest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from qdx.exporter.measure.metrics import finite_or_none, worst_of

__all__ = ["Coverage", "read_coverage"]

_KEY: Final = "coverage"


@dataclass(frozen=True)
class Coverage:
    """What was seen.

    Attributes:
        timesteps_share: Least share over the graphs of groups of timesteps with values in every
            activation, from 0 to 1; NaN where the manifest does not say.
        branches: `both`, `conditional` or `unconditional`, as recorded.
        guided: Whether calibration's own calls had both branches of guidance.
    """

    timesteps_share: float
    branches: str
    guided: bool

    def to_json(self) -> dict[str, Any]:
        """The coverage as plain JSON data."""
        return {
            "timesteps_share": finite_or_none(self.timesteps_share),
            "branches": self.branches,
            "guided": self.guided,
        }


def read_coverage(record: Mapping[str, Any] | None) -> Coverage | None:
    """The coverage in a manifest's record of calibration; None for a bundle that was not calibrated.

    The record is foreign: what does not have its form counts as not seen.
    """
    if record is None:
        return None
    graphs = record.get(_KEY)
    shares = [_share(graph) for graph in graphs.values()] if isinstance(graphs, Mapping) else []
    guidance = record.get("guidance")
    kinds = list(guidance.values()) if isinstance(guidance, Mapping) else []
    return Coverage(
        worst_of(shares),
        str(record.get("branches", "")),
        any(_branches(kind) > 1 for kind in kinds),
    )


def _share(graph: Any) -> float:
    counts = [_count(graph, name) for name in ("timestep_groups_seen", "timestep_groups")]
    return counts[0] / counts[1] if counts[1] > 0 else math.nan


def _branches(kind: Any) -> int:
    return _count(kind, "copies") * _count(kind, "calls")


def _count(record: Any, name: str) -> int:
    value = record.get(name) if isinstance(record, Mapping) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
