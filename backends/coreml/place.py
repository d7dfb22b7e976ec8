"""Where quantizers stand in Core ML's programs.

Only inputs are quantized: each quantizer stands right before its operation, and operations with the same input
share it. A program in float16 has scales of that type, so they are rounded to it here. A program knows `quantize` with
one scale for a tensor, as int8 around zero or as uint8 with a zero point; so a plan's symmetric inputs become int8 and its other ones uint8, which hold the same values as the type asked for.
Weights are integers with scales by tensor, output channel or block, or palettes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qdx.backends.place import HALVES, PlacedInput, place_sites
from qdx.exporter.errors import InternalError

if TYPE_CHECKING:
    from qdx.exporter.calibrate.ranges import Ranges
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.graph.ir.site import Site
    from qdx.exporter.plan.resolve.resolution import ResolvedPlan
    from qdx.exporter.transforms.placement import ActivationQuantization, Placement

__all__ = ["place"]


def place(
    graph: Graph, sites: Sequence[Site], resolved: ResolvedPlan, ranges: Ranges | None
) -> Placement:
    """Chooses the quantizers of one graph; see `qdx.backends.contract.Backend.place`."""
    half = HALVES.get(resolved.storage_dtype(graph.component))
    return place_sites(graph, sites, resolved, ranges, _input, half=half)


def _input(placed: PlacedInput) -> ActivationQuantization:
    if placed.of.ranges is None or len(placed.segments) > 1 or placed.scheme.mode == "dynamic":
        raise InternalError(f"{placed.of.what}: inputs whose scales are no constants")
    # All levels for what is never negative; its zero point is the lowest.
    symmetric = placed.scheme.symmetric and not placed.is_probabilities
    return placed.from_ranges(signed=symmetric, symmetric=False, scheme_symmetric=symmetric)
