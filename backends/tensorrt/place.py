"""Where quantizers stand for TensorRT.

Inputs of weighted operations are quantized, right before them; TensorRT moves quantizers back over what commutes with
them, and fuses one behind an operation into it. Everything is symmetric: activations by tensor, weights by channel or
block, and both by block in blocks of floats. Where each token has a scale, it is divided by its largest magnitude first
and the result multiplied by it, so that the quantizer between has one constant scale, as its kernel wants; the largest
magnitude is one of the token's own numbers, and no type rounds it. Operations with the same input share its quantizer, so q, k and v have one
scale. Nothing stands around norms, activation functions and softmax. Scales are numbers of the type that the component
computes in, because a strongly typed network converts none.

In residual additions the branch is quantized that meets a product: where a quantizer follows the sum, one kernel then
multiplies, adds and gives integers. The products of attention in 8-bit floats have the quantizers that the fused kernel
is known by; the scale of their probabilities stands for 1, which none exceeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from qdx.backends.place import HALVES, PlacedInput, place_sites
from qdx.exporter.formats.scales import choose_qparams
from qdx.exporter.transforms.activations import activation_quantization
from qdx.exporter.transforms.placement import ActivationQuantization, Placement

if TYPE_CHECKING:
    from qdx.exporter.calibrate.ranges import Ranges
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.graph.ir.site import Site
    from qdx.exporter.plan.resolve.resolution import ResolvedPlan

__all__ = ["place"]

_FLOAT8: Final = "float8_e4m3fn"


def place(
    graph: Graph, sites: Sequence[Site], resolved: ResolvedPlan, ranges: Ranges | None
) -> Placement:
    """Chooses the quantizers of one graph; see `qdx.backends.contract.Backend.place`."""
    half = HALVES.get(resolved.storage_dtype(graph.component))
    return place_sites(graph, sites, resolved, ranges, _input, half=half)


def _input(placed: PlacedInput) -> ActivationQuantization:
    if placed.scheme.granularity == "token":
        scale = choose_qparams(-1, 1, "int8", symmetric=True).scale
        return ActivationQuantization("int8", scale, 0, token=True, peak=True)
    if not placed.scheme.calibrated:
        return activation_quantization(placed.segments, None, (), signed=True, symmetric=True)
    if placed.is_probabilities and placed.scheme.dtype == _FLOAT8:
        scale = choose_qparams(0, 1, _FLOAT8, symmetric=True).scale
        return ActivationQuantization(_FLOAT8, scale, 0)
    return placed.from_ranges(signed=True, symmetric=True)
