"""Where quantizers stand so that ONNX Runtime's CPU kernels run in eight bits.

Its convolution in eight bits, QLinearConv, answers in eight bits: without a quantizer right behind it, a
convolution runs in float. Linear operations, products of attention and those convolutions that are
written as Gemm answer in float. Activations are uint8: signed ones would be moved there by the runtime itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, Final

import torch

from qdx.backends.onnxruntime.convolution import COLUMNS_LIMIT_BYTES
from qdx.backends.place import PlacedInput, PlacedSite, place_sites
from qdx.exporter.formats.scales import choose_qparams
from qdx.exporter.graph.analysis.flow import shape
from qdx.exporter.graph.ir.site import OUTPUT
from qdx.exporter.transforms.placement import ActivationQuantization, Placement

if TYPE_CHECKING:
    from torch.fx import Node

    from qdx.exporter.calibrate.ranges import Ranges
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.graph.ir.site import Site
    from qdx.exporter.plan.resolve.resolution import ResolvedPlan

__all__ = ["place"]

_BIAS: Final = 2
_EIGHT_BITS: Final = 8
_MIDDLE: Final = 128
"""Zero of values that are as often negative as positive."""


def place(
    graph: Graph, sites: Sequence[Site], resolved: ResolvedPlan, ranges: Ranges | None
) -> Placement:
    """Decides the quantizers of one graph; see `qdx.backends.contract.Backend.place`."""
    nodes = {node.name: node for node in graph.program.graph.nodes}

    def output(
        placed: PlacedSite, inputs: Mapping[int, ActivationQuantization]
    ) -> ActivationQuantization | None:
        node = nodes[placed.site.node]
        weighted = placed.resolution.quantized_weights is not None
        if placed.site.op != "conv2d" or not weighted or _answers_in_float(node):
            return None
        return _output(placed, node, next(iter(inputs.values())))

    return place_sites(graph, sites, resolved, ranges, _input, output_rule=output)


def _input(placed: PlacedInput) -> ActivationQuantization:
    if placed.scheme.mode == "dynamic":
        # The runtime does not move signed integers that several operations share: those would run in float.
        return ActivationQuantization("uint8", 1.0, _MIDDLE, token=True)
    return placed.from_ranges(signed=False, symmetric=False)


def _output(
    placed: PlacedSite, node: Node, first: ActivationQuantization
) -> ActivationQuantization:
    """The quantizer right behind a convolution, which the kernel applies to its own sums.

    With timestep groups it stands before the result is multiplied by the group's ratio and before the
    bias is added; the range of what is there follows from the recorded one.
    """
    ranges, segments = placed.ranges, placed.resolution.segments
    assert ranges is not None, placed.what
    statistics = ranges.statistics(placed.graph.where, placed.site.key, OUTPUT)
    scheme = segments[0][1]
    settings: dict[str, Any] = {
        "percentile": scheme.percentile,
        "bits": _EIGHT_BITS,
        "symmetric": scheme.symmetric,
    }
    if first.groups is None:
        low, high = statistics.range(scheme.observer, groups=None, **settings)
    else:
        least, most = _bias_bounds(placed.graph, node)
        ends = [
            statistics.range(scheme.observer, groups=list(groups or ()), **settings)
            for groups, _ in segments
        ]
        pairs = list(zip(ends, first.groups.ratios, strict=True))
        low = min((low - most) / ratio for (low, _), ratio in pairs)
        high = max((high - least) / ratio for (_, high), ratio in pairs)
    chosen = choose_qparams(low, high, "uint8", symmetric=scheme.symmetric)
    return ActivationQuantization("uint8", chosen.scale, chosen.zero_point)


def _bias_bounds(graph: Graph, node: Node) -> tuple[float, float]:
    bias = node.args[_BIAS] if len(node.args) > _BIAS else None
    name = None if bias is None else graph.parameters.get(getattr(bias, "name", ""))
    if name is None:
        return 0.0, 0.0
    values = graph.weights[name].read(torch.float32)
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
