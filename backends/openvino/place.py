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
from typing import TYPE_CHECKING, Final

from qdx.exporter.formats.quantization import WeightQuantization
from qdx.exporter.transforms.activations import activation_quantization
from qdx.exporter.transforms.placement import ActivationQuantization, Placement, SitePlacement

if TYPE_CHECKING:
    from qdx.exporter.calibrate.ranges import Ranges
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.graph.ir.site import Site
    from qdx.exporter.plan.resolve.resolution import ResolvedPlan, SiteResolution
    from qdx.exporter.plan.schema.scheme import Inputs
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
    placed = [
        _site(graph.where, site, resolution, ranges)
        for site, resolution in resolved.placed(graph.where, sites)
    ]
    return Placement(graph.where, tuple(placed))


def _site(
    where: str, site: Site, resolution: SiteResolution, ranges: Ranges | None
) -> SitePlacement:
    inputs: dict[int, ActivationQuantization] = {}
    segments = resolution.segments
    if any(inputs_.quantized for _, inputs_ in segments):
        for port, index in site.ports.items():
            inputs[index] = _input(where, site, port, segments, ranges)
    scheme = resolution.quantized_weights
    weight = None if scheme is None else WeightQuantization.of(scheme, site.output_axis)
    return SitePlacement(site.key, inputs=inputs, weight=weight)


def _input(
    where: str,
    site: Site,
    port: str,
    segments: Sequence[tuple[range | None, Inputs]],
    ranges: Ranges | None,
) -> ActivationQuantization:
    if segments[0][1].mode == "dynamic":
        return ActivationQuantization("int8", 1.0, 0, token=True)
    assert ranges is not None
    unsigned = port == _PROBABILITIES
    if unsigned:  # all levels for what is never negative; its zero point is zero
        segments = [
            (groups, one.model_copy(update={"symmetric": False})) for groups, one in segments
        ]
    signed = not unsigned and not segments[0][1].dtype.startswith("u")
    return activation_quantization(
        segments,
        ranges.statistics(where, site.key, port),
        ranges.groups(where),
        signed=signed,
        symmetric=False,
    )
