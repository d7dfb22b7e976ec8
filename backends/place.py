"""Placing quantizers in a graph: the loop that backends share. Each brings its own rules for inputs and outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import torch

from qdx.exporter.formats.quantization import WeightQuantization
from qdx.exporter.transforms.activations import activation_quantization, in_sixteen_bits
from qdx.exporter.transforms.placement import ActivationQuantization, Placement, SitePlacement

if TYPE_CHECKING:
    from qdx.exporter.calibrate.ranges import Ranges
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.graph.ir.site import Site
    from qdx.exporter.plan.resolve.resolution import ResolvedPlan, SiteResolution
    from qdx.exporter.plan.schema.scheme import Inputs

__all__ = ["HALVES", "InputRule", "OutputRule", "PlacedInput", "PlacedSite", "place_sites"]

HALVES: Final[Mapping[str, torch.dtype]] = MappingProxyType(
    {"float16": torch.float16, "bfloat16": torch.bfloat16}
)
"""Types of sixteen bits by name, for runtimes that compute in them and want scales of that type."""
_PROBABILITIES: Final = "probs"


@dataclass(frozen=True)
class PlacedSite:
    """A site around which quantizers are placed.

    Attributes:
        graph: With attention opened where its products are quantized.
        site: Of that graph.
        resolution: What becomes of it.
        ranges: Recorded ranges; None where no scale comes from calibration.
    """

    graph: Graph
    site: Site
    resolution: SiteResolution
    ranges: Ranges | None

    @property
    def what(self) -> str:
        """Its name, for messages."""
        return f"`{self.graph.where}.{self.site.key}`"


@dataclass(frozen=True)
class PlacedInput:
    """An input of a site that a plan quantizes.

    Attributes:
        of: The site.
        port: Which input of it: `input`, `query`, `probs` and the like.
    """

    of: PlacedSite
    port: str

    @property
    def segments(self) -> tuple[tuple[range | None, Inputs], ...]:
        """The schemes by timestep groups; None stands for all groups."""
        return self.of.resolution.segments

    @property
    def scheme(self) -> Inputs:
        """The scheme of the first group."""
        return self.segments[0][1]

    @property
    def is_probabilities(self) -> bool:
        """Whether it is what attention multiplies its values by: from 0 to 1."""
        return self.port == _PROBABILITIES

    def from_ranges(
        self, *, signed: bool, symmetric: bool, scheme_symmetric: bool | None = None
    ) -> ActivationQuantization:
        """The quantizer whose scale comes from the recorded range.

        Args:
            signed: Its integers are signed.
            symmetric: The kernel wants the zero point in the middle; otherwise the plan's wish holds.
            scheme_symmetric: Replaces the plan's wish; None leaves it.

        Raises:
            InvalidInput: The range was not recorded.
        """
        segments = self.segments
        if scheme_symmetric is not None:
            update = {"symmetric": scheme_symmetric}
            segments = tuple((groups, one.model_copy(update=update)) for groups, one in segments)
        graph, ranges = self.of.graph, self.of.ranges
        assert ranges is not None, self.of.what
        return activation_quantization(
            segments,
            ranges.statistics(graph.where, self.of.site.key, self.port),
            ranges.groups(graph.where),
            signed=signed,
            symmetric=symmetric,
        )


InputRule = Callable[[PlacedInput], ActivationQuantization]
"""The quantizer right before an operation, of one of its inputs."""
OutputRule = Callable[
    [PlacedSite, Mapping[int, ActivationQuantization]], ActivationQuantization | None
]
"""The quantizer right behind an operation whose inputs have quantizers; None for none."""


def place_sites(
    graph: Graph,
    sites: Sequence[Site],
    resolved: ResolvedPlan,
    ranges: Ranges | None,
    input_rule: InputRule,
    *,
    output_rule: OutputRule | None = None,
    half: torch.dtype | None = None,
) -> Placement:
    """Chooses the quantizers of one graph.

    Args:
        graph: With attention opened where its products are quantized.
        sites: Of that graph.
        resolved: What becomes of each site.
        ranges: Recorded ranges; None where only weights are quantized.
        input_rule: Of the runtime.
        output_rule: Of the runtime; None where nothing is quantized behind operations.
        half: The type of scales, where the component is computed in sixteen bits and none is converted.

    Raises:
        InvalidInput: The range of a quantized input was not recorded, or its scale is no number of the type of scales.
    """
    placed = []
    for site, resolution in resolved.placed(graph.where, sites):
        one = PlacedSite(graph, site, resolution, ranges)
        inputs: dict[int, ActivationQuantization] = {}
        if any(scheme.quantized for _, scheme in resolution.segments):
            inputs = {
                index: input_rule(PlacedInput(one, port)) for port, index in site.ports.items()
            }
        if half is not None:
            inputs = {i: in_sixteen_bits(found, half, one.what) for i, found in inputs.items()}
        weight = resolution.quantized_weights
        placed.append(
            SitePlacement(
                site.key,
                inputs=MappingProxyType(inputs),
                weight=None if weight is None else WeightQuantization.of(weight, site.output_axis),
                output=output_rule(one, inputs) if output_rule is not None and inputs else None,
            )
        )
    return Placement(graph.where, tuple(placed))
