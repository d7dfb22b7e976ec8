"""Where quantizers stand so that ONNX Runtime's CPU kernels run in eight bits.

Its convolution in eight bits, QLinearConv, answers in eight bits: without a quantizer right behind it, a
convolution runs in float. Linear operations, products of attention and those convolutions that are
written as Gemm answer in float. Activations are uint8: signed ones would be moved there by the runtime itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import torch

from qdx.backends.onnxruntime.convolution import COLUMNS_LIMIT_BYTES
from qdx.exporter.formats.quantization import WeightQuantization
from qdx.exporter.formats.scales import choose_qparams
from qdx.exporter.graph.analysis.flow import shape
from qdx.exporter.graph.ir.site import OUTPUT
from qdx.exporter.transforms.activations import activation_quantization
from qdx.exporter.transforms.placement import ActivationQuantization, Placement, SitePlacement

if TYPE_CHECKING:
    from torch.fx import Node

    from qdx.exporter.calibrate.ranges import Ranges
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.graph.ir.site import Site
    from qdx.exporter.plan.resolve.resolution import ResolvedPlan, SiteResolution
    from qdx.targets.profile import TargetProfile

__all__ = ["place"]

_BIAS: Final = 2
_EIGHT_BITS: Final = 8
_MIDDLE: Final = 128
"""Zero of values that are as often negative as positive."""


def place(
    graph: Graph,
    sites: Sequence[Site],
    resolved: ResolvedPlan,
    ranges: Ranges | None,
    profile: TargetProfile,
) -> Placement:
    """Decides the quantizers of one graph.

    Args:
        graph: The float graph; attention whose products are quantized is open.
        sites: Its sites.
        resolved: What the plan asks for.
        ranges: What calibration recorded; None where no scale comes from it.
        profile: The target.

    Raises:
        InvalidInput: The ranges do not hold what is needed.
    """
    del profile  # what it can do is in the resolution already
    nodes = {node.name: node for node in graph.program.graph.nodes}
    placed = [
        _SiteRules(graph, site, resolution, nodes[site.node], ranges).placement()
        for site, resolution in resolved.placed(graph.where, sites)
    ]
    return Placement(graph.where, tuple(placed))


class _SiteRules:
    """The rules for one site."""

    def __init__(
        self,
        graph: Graph,
        site: Site,
        resolution: SiteResolution,
        node: Node,
        ranges: Ranges | None,
    ) -> None:
        self._graph = graph
        self._site = site
        self._resolution = resolution
        self._node = node
        self._ranges = ranges

    def placement(self) -> SitePlacement:
        """What stands around the site."""
        weights = self._resolution.quantized_weights
        quantized = any(scheme.quantized for _, scheme in self._resolution.segments)
        inputs = self._inputs() if quantized else {}
        answers_in_bits = (
            self._site.op == "conv2d"
            and weights is not None
            and bool(inputs)
            and not _answers_in_float(self._node)
        )
        return SitePlacement(
            key=self._site.key,
            inputs=MappingProxyType(inputs),
            weight=None
            if weights is None
            else WeightQuantization.of(weights, self._site.output_axis),
            output=self._output(next(iter(inputs.values()))) if answers_in_bits else None,
        )

    def _inputs(self) -> dict[int, ActivationQuantization]:
        found = {}
        for port, index in self._site.ports.items():
            found[index] = self._activation(port)
        return found

    def _activation(self, port: str) -> ActivationQuantization:
        segments, where = self._resolution.segments, self._graph.where
        if segments[0][1].mode == "dynamic":
            # The runtime does not move signed integers that several operations share: those would run in float.
            return ActivationQuantization("uint8", 1.0, _MIDDLE, token=True)
        assert self._ranges is not None, self._site.key
        return activation_quantization(
            segments,
            self._ranges.statistics(where, self._site.key, port),
            self._ranges.groups(where),
            signed=False,
            symmetric=False,
        )

    def _output(self, first: ActivationQuantization) -> ActivationQuantization:
        """The quantizer right behind a convolution, which the kernel applies to its own sums.

        With timestep groups it stands before the result is multiplied by the group's ratio and before the
        bias is added; the range of what is there follows from the recorded one.
        """
        assert self._ranges is not None, self._site.key
        statistics = self._ranges.statistics(self._graph.where, self._site.key, OUTPUT)
        scheme = self._resolution.segments[0][1]
        settings: dict[str, Any] = {
            "percentile": scheme.percentile,
            "bits": _EIGHT_BITS,
            "symmetric": scheme.symmetric,
        }
        if first.groups is None:
            low, high = statistics.range(scheme.observer, groups=None, **settings)
        else:
            least, most = self._bias_bounds()
            ends = [
                statistics.range(scheme.observer, groups=list(groups or ()), **settings)
                for groups, _ in self._resolution.segments
            ]
            pairs = list(zip(ends, first.groups.ratios, strict=True))
            low = min((low - most) / ratio for (low, _), ratio in pairs)
            high = max((high - least) / ratio for (_, high), ratio in pairs)
        chosen = choose_qparams(low, high, "uint8", symmetric=scheme.symmetric)
        return ActivationQuantization("uint8", chosen.scale, chosen.zero_point)

    def _bias_bounds(self) -> tuple[float, float]:
        bias = self._node.args[_BIAS] if len(self._node.args) > _BIAS else None
        name = None if bias is None else self._graph.parameters.get(getattr(bias, "name", ""))
        if name is None:
            return 0.0, 0.0
        values = self._graph.weights[name].read(torch.float32)
        return float(values.min()), float(values.max())


def _answers_in_float(node: Node) -> bool:
    """Whether a quantized convolution is lowered to Gemm; see `qdx.backends.onnxruntime.convolution`."""
    weight = node.args[1]
    # conv2d(input, weight, bias, stride, padding, dilation, groups)
    names = ("stride", "padding", "dilation", "groups")
    given = dict(zip(names, node.args[_BIAS + 1 :], strict=False))
    batch, _, height, width = shape(node)
    columns_bytes = batch * height * width * prod(shape(weight)[1:])
    return (
        not isinstance(given.get("padding", 0), str)
        and _all(given.get("dilation", 1), 1)
        and bool(given.get("groups", 1) == 1)
        and bool(columns_bytes <= COLUMNS_LIMIT_BYTES)
    )


def _all(numbers: Any, wanted: int) -> bool:
    return all(
        number == wanted for number in (numbers if isinstance(numbers, list | tuple) else [numbers])
    )
