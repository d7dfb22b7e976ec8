"""Where quantizers stand for OpenVINO's CPU device.

Only inputs are quantized: kernels with 8-bit inputs give float results. Where a quantizer stands in
relation to moves of data does not matter, so it stands right before its operation; operations with the same
input share it. The rules were measured, see `targets/openvino.toml`:

- convolutions and linear operations take activations with or without a zero point;
- in products of two activations a zero point turns the 8-bit kernel off, except that probabilities are
  never negative and take all of an unsigned type with zero at its lowest value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qdx.backends.place import PlacedInput, place_sites
from qdx.exporter.transforms.placement import ActivationQuantization, Placement

if TYPE_CHECKING:
    from qdx.exporter.calibrate.ranges import Ranges
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.graph.ir.site import Site
    from qdx.exporter.plan.resolve.resolution import ResolvedPlan

__all__ = ["place"]


def place(
    graph: Graph, sites: Sequence[Site], resolved: ResolvedPlan, ranges: Ranges | None
) -> Placement:
    """Chooses the quantizers of one graph; see `qdx.backends.contract.Backend.place`."""
    return place_sites(graph, sites, resolved, ranges, _input)


def _input(placed: PlacedInput) -> ActivationQuantization:
    if placed.scheme.mode == "dynamic":
        return ActivationQuantization("int8", 1.0, 0, token=True)
    if placed.is_probabilities:  # all levels for what is never negative; its zero point is zero
        return placed.from_ranges(signed=False, symmetric=False, scheme_symmetric=False)
    return placed.from_ranges(signed=not placed.scheme.dtype.startswith("u"), symmetric=False)
