"""Layers that take low-rank adapters while the graph runs: two small matrices each, as inputs of the graph."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, cast

import torch
from torch.export.graph_signature import InputKind, InputSpec, TensorArgument
from torch.utils import _pytree as pytree

from qdx.exporter.graph.analysis.flow import name_of
from qdx.exporter.graph.analysis.sites import sites
from qdx.exporter.graph.ir.adapters import AdaptedLayer, mark_beside
from qdx.exporter.graph.ir.editing import ProgramEditor
from qdx.exporter.graph.ir.spec import TensorSpec

if TYPE_CHECKING:
    from torch.fx import Node

    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.graph.ir.site import Site

__all__ = ["with_adapter_inputs"]

aten = torch.ops.aten
_WEIGHT: Final = ".weight"
_CONVOLUTION: Final = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_QUANTIZERS: Final = ("dequantize", "dequantize_tensor"), ("quantize", "quantize_tensor")


def with_adapter_inputs(graph: Graph, rank: int) -> tuple[Graph, tuple[AdaptedLayer, ...]]:
    """Adds to every linear layer, and to convolutions that mix no pixels, a product of two further inputs.

    Before: y = linear(x, W, b)
    After:  y = linear(x, W, b) + linear(linear(x, down), up)

    Where x is quantized, the adapter takes it as it was before; quantized weights stay as they are.

    Args:
        graph: Quantized or not; it stays as it is.
        rank: Of the two matrices.

    Returns:
        The graph, its further inputs behind its own, and the layers that take adapters, in the order of execution. Layers
        that share their weights with others are left out, as no adapter is for one of them alone.
    """
    tied = {*graph.weights.aliases, *graph.weights.aliases.values()}
    chosen: dict[str, list[Site]] = {}
    for site in sites(graph):
        if site.weight is None or site.weight in tied or not site.weight.endswith(_WEIGHT):
            continue
        if site.op == "linear" or _is_linear_convolution(graph, site):
            chosen.setdefault(site.weight.removesuffix(_WEIGHT), []).append(site)
    if not chosen:
        return graph, ()
    editor = _AdapterEditor(graph)
    layers = tuple(editor.adapt(path, calls, rank) for path, calls in chosen.items())
    specs = [
        TensorSpec(name, "float32", shape)
        for layer in layers
        for name, shape in (
            (layer.down, (rank, layer.inputs)),
            (layer.up, (layer.outputs, rank)),
        )
    ]
    return dataclasses.replace(editor.finish(), inputs=(*graph.inputs, *specs)), layers


def _is_linear_convolution(graph: Graph, site: Site) -> bool:
    """Whether a convolution is a linear operation on the channels of each pixel."""
    if site.op != "conv2d" or site.weight_shape[2:] != (1, 1):
        return False
    node = next(node for node in graph.program.graph.nodes if node.name == site.node)
    given = dict(zip(_CONVOLUTION, node.args, strict=False))
    usual: dict[str, Any] = {"stride": [1], "padding": [0], "groups": 1}
    stride, padding, groups = (given.get(name, value) for name, value in usual.items())
    whole = isinstance(padding, str) or not any(padding)  # words pad a kernel of one by nothing
    return whole and set(stride) == {1} and groups == 1


class _AdapterEditor(ProgramEditor):
    """An editor that adds inputs."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self._added: list[str] = []

    def adapt(self, path: str, calls: Iterable[Site], rank: int) -> AdaptedLayer:
        """Lets every call of a layer add what the two inputs make of its own."""
        calls = list(calls)
        outputs, inputs = calls[0].weight_shape[:2]
        number = len(self._added) // 2
        # Some targets take identifiers alone, and no two paths may become the same.
        layer = AdaptedLayer(path, f"lora_A_{number}", f"lora_B_{number}", inputs, outputs)
        down = self._add_input(layer.down, (rank, inputs))
        up = self._add_input(layer.up, (outputs, rank))
        for site in calls:
            self._add_product(self.node(site.node), site, down, up)
        return layer

    def finish(self) -> Graph:
        """The edited graph, whose program says which inputs it has."""
        graph = super().finish()
        calls = graph.program.module_call_graph
        signature = calls[0].signature
        assert signature is not None
        (tensors,), keywords = pytree.tree_unflatten(
            [0] * signature.in_spec.num_leaves, signature.in_spec
        )
        structure = pytree.tree_structure(
            (
                ({**tensors, **dict.fromkeys(self._added, 0)},),
                keywords,
            )
        )
        calls[0] = dataclasses.replace(
            calls[0], signature=dataclasses.replace(signature, in_spec=structure)
        )
        return graph

    def _add_input(self, name: str, shape: tuple[int, int]) -> Node:
        with self._mode:
            value = torch.empty(shape)
        node = self._placeholder("a", InputKind.USER_INPUT, name, value)
        self._inputs[node.name] = InputSpec(InputKind.USER_INPUT, TensorArgument(node.name), None)
        self._added.append(name)
        return node

    def _add_product(self, node: Node, site: Site, down: Node, up: Node) -> None:
        data: Any = node.args[site.ports["input"]]
        steps: list[tuple[Any, tuple[Any, ...]]] = [
            (aten.linear.default, (down,)),
            (aten.linear.default, (up,)),
        ]
        if site.op != "linear":  # channels last, and back
            steps = [(aten.permute.default, ([0, 2, 3, 1],)), *steps, (aten.permute.default, ([0, 3, 1, 2],))]  # fmt: skip
        last = _before_quantizers(data)
        after = node
        for op, rest in steps:
            last = after = mark_beside(self.call(op, (last, *rest), after=after, like=node))
        total = self.call(aten.add.Tensor, (node, last), after=after, like=node)
        node.replace_all_uses_with(
            mark_beside(total), delete_user_cb=lambda user: user is not total
        )


def _before_quantizers(node: Node) -> Node:
    """What an activation was before it was quantized and dequantized; itself where it was not."""
    found: Any = node
    for names in _QUANTIZERS:
        if name_of(found) not in names:
            return node
        found = found.args[0]
    return cast("Node", found)
