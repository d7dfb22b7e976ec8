"""Quantized graphs: a placement's quantizers inserted into a float graph."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.fx import Node

from qdx.exporter.errors import InternalError
from qdx.exporter.formats.block_floats import NVFP4_BLOCK
from qdx.exporter.graph.ir import operators
from qdx.exporter.graph.ir.editing import ProgramEditor
from qdx.exporter.transforms.insert_weights import WeightInsertion, label

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.graph.ir.site import Site
    from qdx.exporter.transforms.placement import (
        ActivationQuantization,
        Placement,
        SitePlacement,
    )

__all__ = ["insert"]

assert operators.CONTAINERS  # importing the module registers the operators
aten, ops = torch.ops.aten, torch.ops.qdx

_TOKEN_MAXIMUM: Final = 127.0
_TOKEN_FLOOR: Final = 1e-12
_PEAK_FLOOR: Final = 2.0**-14
"""float16's least normal number, which no kernel takes for zero."""
_BIAS: Final = 2
"""Argument index of the bias of linear operations and convolutions."""


def insert(
    graph: Graph, sites: Sequence[Site], placement: Placement, timestep_input: str | None = None
) -> Graph:
    """Inserts a placement's quantizers.

    Args:
        graph: The float graph.
        sites: Its sites.
        placement: What stands where.
        timestep_input: Name of the graph's input that tells the timestep; None where no scale depends on it.

    Returns:
        A graph whose program holds `qdx` operators and whose quantized weights are integers, derived
        lazily from the float ones. The given graph is unchanged.

    Raises:
        InternalError: The placement names a site or a timestep that the graph does not have.
    """
    return _Insertion(graph, sites, timestep_input).run(placement)


class _Insertion:
    """One graph under work; quantizers of the same tensor with the same numbers are shared."""

    def __init__(self, graph: Graph, sites: Sequence[Site], timestep_input: str | None) -> None:
        self._graph = graph
        self._timestep_input = timestep_input
        self._sites = {site.key: site for site in sites}
        self._editor = ProgramEditor(graph)
        self._activations: dict[tuple[str, ActivationQuantization], tuple[Node, Node | None]] = {}
        self._stored = WeightInsertion(self._editor, graph.weights)
        self._groups: dict[tuple[float, ...], Node] = {}
        self._prologue = _Prologue()
        self._constants = 0

    def run(self, placement: Placement) -> Graph:
        for placed in placement.sites:
            if placed.key not in self._sites:
                raise InternalError(f"`{self._graph.where}`: no site `{placed.key}`")
        weights = self._weight_names(placement)
        for placed in placement.sites:
            site = self._sites[placed.key]
            node = self._editor.node(site.node)
            if placed.weight is not None:
                assert site.weight is not None, site.key
                self._stored.quantize(node, site.weight, placed.weight, weights[placed.key])
            self._place(node, site, placed)
        return self._editor.finish()

    def _place(self, node: Node, site: Site, placed: SitePlacement) -> None:
        factors = []
        for index, quantization in placed.inputs.items():
            value, factor = self._quantized(node.args[index], quantization, like=node)
            node.update_arg(index, value)
            if factor is not None:
                factors.append(factor)
        if factors:
            self._rescale(node, site, factors)
        if placed.output is not None:  # right behind the operation, where kernels look for it
            users = list(node.users)
            value, _ = self._quantized(node, placed.output, like=node)
            for user in users:
                user.replace_input_with(node, value)

    def _quantized(
        self, source: Any, quantization: ActivationQuantization, *, like: Node
    ) -> tuple[Node, Node | None]:
        """A tensor behind its quantizer, and the factor that the operation's result needs, if any."""
        key = (source.name, quantization)
        if key in self._activations:
            return self._activations[key]
        factor, group, value = None, None, source
        if quantization.groups is not None:
            group = self._group_index(quantization.groups.boundaries)
        chain = self._chain(source, like)
        if quantization.block_floats:
            self._activations[key] = self._blocks(chain, source, quantization), None
            return self._activations[key]
        if quantization.groups is not None:
            assert group is not None
            factor = chain.call(aten.index_select.default, self._table(quantization.groups.ratios), 0, group)  # fmt: skip
            value = chain.call(aten.div.Tensor, value, factor)
        elif quantization.token:
            factor = self._token_factor(chain, value, peak=quantization.peak)
            value = chain.call(aten.div.Tensor, value, factor)
        value = self._bounded(chain, value, quantization, group)
        numbers = (quantization.scale, quantization.zero_point)
        integers = chain.call(ops.quantize_tensor.default, value, *numbers, quantization.dtype)
        result = chain.call(ops.dequantize_tensor.default, integers, *numbers)
        self._activations[key] = result, factor
        return result, factor

    def _blocks(self, chain: _Chain, value: Node, quantization: ActivationQuantization) -> Node:
        """The tensor behind a quantizer that computes the scales of blocks."""
        if quantization.dtype == "mxfp8":
            both = chain.call(ops.quantize_mxfp8.default, value)
            elements, exponents = (chain.call(operator.getitem, both, i) for i in range(2))
            return chain.call(ops.dequantize_mxfp8.default, elements, exponents)
        self._constants += 1
        name = f"qdx_tensor_scale_{self._constants}"
        scale = self._editor.add_constant(name, torch.tensor(quantization.scale))
        both = chain.call(ops.quantize_nvfp4.default, value, scale)
        elements, block_scales = (chain.call(operator.getitem, both, i) for i in range(2))
        outer = (scale, None, -1, 0, "float8_e4m3fn")
        scales = chain.call(ops.dequantize.default, block_scales, *outer)
        inner = (scales, None, -1, NVFP4_BLOCK, "float4_e2m1fn")
        return chain.call(ops.dequantize.default, elements, *inner)

    def _bounded(
        self, chain: _Chain, value: Node, quantization: ActivationQuantization, group: Node | None
    ) -> Node:
        """The tensor clipped to what fewer bits can hold, so that the carrier's integers stay in bounds."""
        scale, zero = quantization.scale, quantization.zero_point
        if quantization.groups is not None and quantization.groups.bounds:
            assert group is not None
            for side, clip in ((0, aten.maximum.default), (1, aten.minimum.default)):
                ends = [(bound[side] - zero) * scale for bound in quantization.groups.bounds]
                limit = chain.call(aten.index_select.default, self._table(ends), 0, group)
                value = chain.call(clip, value, limit)
        elif quantization.bounds is not None:
            low, high = ((bound - zero) * scale for bound in quantization.bounds)
            value = chain.call(aten.clamp.default, value, low, high)
        return value

    def _token_factor(self, chain: _Chain, value: Node, *, peak: bool) -> Node:
        """Each token's largest magnitude, or that over 127; at least a floor, so that zeros stay zeros."""
        magnitude = chain.call(aten.abs.default, value)
        largest = chain.call(aten.amax.default, magnitude, [-1], True)
        if peak:
            self._constants += 1
            name = f"qdx_least_magnitude_{self._constants}"
            # No clip, whose other bound would be one that sixteen bits do not hold.
            floor = self._editor.add_constant(name, torch.tensor(_PEAK_FLOOR))
            return chain.call(aten.maximum.default, largest, floor)
        scale = chain.call(aten.div.Tensor, largest, _TOKEN_MAXIMUM)
        return chain.call(aten.clamp_min.default, scale, _TOKEN_FLOOR)

    def _chain(self, after: Node, like: Node | None) -> _Chain:
        return _Chain(self._editor, self._prologue, after, like)

    def _table(self, values: Sequence[float]) -> Node:
        self._constants += 1
        name = f"qdx_group_table_{self._constants}"
        return self._editor.add_constant(name, torch.tensor(values, dtype=torch.float32))

    def _group_index(self, boundaries: tuple[float, ...]) -> Node:
        """The group of the call's timestep, int64 [1]: how many boundaries are at or above it."""
        if boundaries not in self._groups:
            timestep = self._timestep()
            self._constants += 1
            limits = self._editor.add_constant(
                f"qdx_group_boundaries_{self._constants}",
                torch.tensor(boundaries, dtype=torch.float32),
            )
            chain = self._chain(timestep, None)
            flat = chain.call(aten.reshape.default, timestep, [-1])
            each = chain.call(aten._to_copy.default, flat, dtype=torch.float32)  # noqa: SLF001
            # Of a batch the largest, as calibration counts it.
            number = chain.call(aten.amax.default, each, [0], True)
            passed = chain.call(aten.le.Tensor, number, limits)
            counted = chain.call(aten._to_copy.default, passed, dtype=torch.int64)  # noqa: SLF001
            self._groups[boundaries] = chain.call(aten.sum.dim_IntList, counted, [0], True)
        return self._groups[boundaries]

    def _timestep(self) -> Node:
        placeholder = self._graph.placeholders.get(self._timestep_input or "")
        if placeholder is None:
            raise InternalError(f"`{self._graph.where}`: no timestep among its inputs")
        return self._editor.node(placeholder)

    def _rescale(self, node: Node, site: Site, factors: Sequence[Node]) -> None:
        """The result multiplied by the factors of its inputs, before the bias is added."""
        users = list(node.users)
        has_bias = site.weight is not None and len(node.args) > _BIAS
        bias = node.args[_BIAS] if has_bias else None
        if bias is not None:
            node.update_arg(_BIAS, None)
        chain = self._chain(node, node)
        result = node
        for factor in factors:
            result = chain.call(aten.mul.Tensor, result, factor)
        if bias is not None:
            trailing = 0 if site.channel_axis == -1 else node.meta["val"].dim() - 2
            if trailing:
                bias = chain.call(aten.reshape.default, bias, [-1, *[1] * trailing])
            result = chain.call(aten.add.Tensor, result, bias)
        for user in users:
            user.replace_input_with(node, result)

    def _weight_names(self, placement: Placement) -> dict[str, str]:
        """The name under which each site's integers go: the weight's own where all its uses agree."""
        wanted = {placed.key: placed.weight for placed in placement.sites if placed.weight}
        by_node = {self._sites[key].node: quantization for key, quantization in wanted.items()}
        names = {}
        for key, quantization in wanted.items():
            weight = self._sites[key].weight
            assert weight is not None, key
            users = self._editor.parameter(weight).users
            alone = all(by_node.get(user.name) == quantization for user in users)
            names[key] = weight if alone else f"{weight}_{label(quantization)}"
        return names


@dataclass
class _Prologue:
    """What was inserted at the start of a graph, behind its inputs: the last node of it."""

    last: Node | None = None


class _Chain:
    """Nodes added one after another behind a node; behind the prologue if that node is an input."""

    def __init__(
        self, editor: ProgramEditor, prologue: _Prologue, after: Node, like: Node | None
    ) -> None:
        self._editor = editor
        self._like = like
        self._prologue = prologue if after.op == "placeholder" else _Prologue()
        self._after = self._prologue.last or after

    def call(self, op: Any, *args: Any, **kwargs: Any) -> Node:
        self._after = self._editor.call(op, args, kwargs, after=self._after, like=self._like)
        self._prologue.last = self._after
        return self._after
