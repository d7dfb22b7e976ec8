"""Where quantizers stand for TensorRT.

Inputs of weighted operations are quantized, right before them; TensorRT moves quantizers back over what commutes with
them, and fuses one behind an operation into it. Everything is symmetric: activations by tensor, weights by channel or
block, and both by block in blocks of floats. Operations with the same input share its quantizer, so q, k and v have one
scale. Nothing stands around norms, activation functions and softmax. Scales are numbers of the type that the component
computes in, because a strongly typed network converts none.

In residual additions the branch is quantized that meets a product: where a quantizer follows the sum, one kernel then
multiplies, adds and gives integers. The products of attention in 8-bit floats have the quantizers that the fused kernel
is known by; the scale of their probabilities stands for 1, which none exceeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import torch

from qdx.exporter.formats.quantization import WeightQuantization
from qdx.exporter.formats.scales import choose_qparams
from qdx.exporter.transforms.activations import activation_quantization, in_sixteen_bits
from qdx.exporter.transforms.placement import ActivationQuantization, Placement, SitePlacement

if TYPE_CHECKING:
    from qdx.exporter.calibrate.ranges import Ranges
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.graph.ir.site import Site
    from qdx.exporter.plan.resolve.resolution import ResolvedPlan, SiteResolution
    from qdx.targets.profile import TargetProfile

__all__ = ["place"]

_HALVES: Final = {"float16": torch.float16, "bfloat16": torch.bfloat16}
_FLOAT8: Final = "float8_e4m3fn"
_PROBABILITIES: Final = "probs"


def place(
    graph: Graph,
    sites: Sequence[Site],
    resolved: ResolvedPlan,
    ranges: Ranges | None,
    profile: TargetProfile,
) -> Placement:
    """Chooses the quantizers of one graph.

    Args:
        graph: The float graph.
        sites: Of that graph.
        resolved: What becomes of each site.
        ranges: Recorded ranges of the inputs; None where only weights are quantized.
        profile: The target.

    Raises:
        InvalidInput: The range of a quantized input was not recorded, or its scale is no number of the component's type.
    """
    del profile  # what it can do is in the resolution already
    half = _HALVES.get(resolved.storage_dtype(graph.component))
    placed = []
    for site, resolution in resolved.placed(graph.where, sites):
        inputs = _inputs(graph.where, site, resolution, ranges)
        if half is not None:
            what = f"`{graph.where}.{site.key}`"
            inputs = {i: in_sixteen_bits(one, half, what) for i, one in inputs.items()}
        scheme = resolution.quantized_weights
        weight = None if scheme is None else WeightQuantization.of(scheme, site.output_axis)
        placed.append(SitePlacement(site.key, inputs=inputs, weight=weight))
    return Placement(graph.where, tuple(placed))


def _inputs(
    where: str, site: Site, resolution: SiteResolution, ranges: Ranges | None
) -> dict[int, ActivationQuantization]:
    segments = resolution.segments
    if not any(inputs.quantized for _, inputs in segments):
        return {}
    if not segments[0][1].calibrated:
        scales = activation_quantization(segments, None, (), signed=True, symmetric=True)
        return dict.fromkeys(site.ports.values(), scales)
    assert ranges is not None
    groups = ranges.groups(where)
    found = {}
    for port, index in site.ports.items():
        if port == _PROBABILITIES and segments[0][1].dtype == _FLOAT8:
            scale = choose_qparams(0, 1, _FLOAT8, symmetric=True).scale
            found[index] = ActivationQuantization(_FLOAT8, scale, 0)
            continue
        found[index] = activation_quantization(
            segments,
            ranges.statistics(where, site.key, port),
            groups,
            signed=True,
            symmetric=True,
        )
    return found
