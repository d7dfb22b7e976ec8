"""Where quantizers stand in Core ML's programs.

Only inputs are quantized: each quantizer stands right before its operation, and operations with the same input
share it. A program in float16 has scales of that type, so they are rounded to it here. A program knows `quantize` with one scale for a tensor, as int8 around zero or as uint8 with a zero point;
so a plan's symmetric inputs become int8 and its other ones uint8, which hold the same values as the type asked for.
Weights are integers with scales by tensor, output channel or block, or palettes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import torch

from qdx.exporter.errors import InternalError
from qdx.exporter.formats.quantization import WeightQuantization
from qdx.exporter.transforms.activations import activation_quantization, in_sixteen_bits
from qdx.exporter.transforms.placement import ActivationQuantization, Placement, SitePlacement

if TYPE_CHECKING:
    from qdx.exporter.calibrate.ranges import Ranges
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.graph.ir.site import Site
    from qdx.exporter.plan.resolve.resolution import ResolvedPlan, SiteResolution
    from qdx.targets.profile import TargetProfile

__all__ = ["place"]

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
        graph: With attention opened where its products are quantized.
        sites: Of that graph.
        resolved: What becomes of each site.
        ranges: Recorded ranges of the inputs; None where only weights are quantized.
        profile: The target.

    Raises:
        InvalidInput: The range of a quantized input was not recorded.
    """
    del profile  # what it can do is in the resolution already
    half = resolved.storage_dtype(graph.component) == "float16"
    placed = [
        SitePlacement(
            site.key,
            inputs=_inputs(graph.where, site, resolution, ranges, half=half),
            weight=_weight(site, resolution),
        )
        for site, resolution in resolved.placed(graph.where, sites)
    ]
    return Placement(graph.where, tuple(placed))


def _inputs(
    where: str, site: Site, resolution: SiteResolution, ranges: Ranges | None, *, half: bool
) -> Mapping[int, ActivationQuantization]:
    """The quantizers of a site's inputs by argument index."""
    segments = resolution.segments
    if not segments:
        return MappingProxyType({})
    scheme = segments[0][1]
    if ranges is None or len(segments) > 1 or scheme.mode == "dynamic":
        raise InternalError(f"`{where}.{site.key}`: inputs whose scales are no constants")
    found = {}
    for port, index in site.ports.items():
        # All levels for what is never negative; its zero point is the lowest.
        symmetric = scheme.symmetric and port != _PROBABILITIES
        quantization = activation_quantization(
            [(None, scheme.model_copy(update={"symmetric": symmetric}))],
            ranges.statistics(where, site.key, port),
            ranges.groups(where),
            signed=symmetric,
            symmetric=False,
        )
        if half:
            quantization = in_sixteen_bits(quantization, torch.float16, f"`{where}.{site.key}`")
        found[index] = quantization
    return MappingProxyType(found)


def _weight(site: Site, resolution: SiteResolution) -> WeightQuantization | None:
    scheme = resolution.quantized_weights
    return None if scheme is None else WeightQuantization.of(scheme, site.output_axis)
