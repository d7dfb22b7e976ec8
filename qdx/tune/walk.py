"""A graph computed node by node with gradients, some of its values given by others than its nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from qdx.exporter.devices import CPU
from qdx.exporter.errors import InternalError
from qdx.exporter.graph.execute.placed_calls import caller_for

if TYPE_CHECKING:
    from torch.fx import Node

    from qdx.exporter.graph.ir.graph import Graph

__all__ = ["GradientWalk", "Value"]

Value = Callable[["Node"], Any]
"""Gives the value of a node."""


class GradientWalk:
    """A graph as a function. Nodes that only lead to given values are not computed.

    Values are dropped after their last use, as far as no gradient needs them.

    Args:
        graph: The graph; no operation of it changes a tensor in place.
        given: By name of a node, what makes its value, from those of the nodes in `reads`.
        reads: By name of such a node, the nodes whose values it takes.
        device: Where it computes.
    """

    def __init__(
        self,
        graph: Graph,
        given: Mapping[str, Callable[[Value], Any]],
        reads: Mapping[str, tuple[Node, ...]],
        device: torch.device = CPU,
    ) -> None:
        self._graph = graph
        self._given = given
        self._call = caller_for(device)
        self._inputs = {place: name for name, place in graph.placeholders.items()}
        self._constants = {name: one.to(device) for name, one in graph.buffers.items()}
        self._device = device
        nodes = tuple(graph.program.graph.nodes)
        end = nodes[-1]

        def sources(node: Node) -> tuple[Node, ...]:
            return reads.get(node.name, ()) if node.name in given else tuple(node.all_input_nodes)

        live, waiting = {end}, [end]
        while waiting:
            for source in sources(waiting.pop()):
                if source not in live:
                    live.add(source)
                    waiting.append(source)
        self._nodes = tuple(node for node in nodes if node in live)
        last: dict[Node, Node] = {}
        for node in self._nodes:
            last.update(dict.fromkeys(sources(node), node))
        self._drops: dict[Node, list[Node]] = {}
        for source, node in last.items():
            self._drops.setdefault(node, []).append(source)
        parameters = graph.parameters
        for node in self._nodes:
            if node.name in parameters and node.name not in given:
                weight = graph.weights[parameters[node.name]]
                self._constants[node.name] = weight.read().to(device)

    def __call__(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The outputs by name, on the device.

        Args:
            inputs: Every input by name, with the dtype and shape that the graph declares.
        """
        values: dict[Node, Any] = {}
        for node in self._nodes:
            if node.op == "output":
                (results,) = node.args
                assert isinstance(results, list | tuple)
                specs = self._graph.outputs
                return {spec.name: values[one] for spec, one in zip(specs, results, strict=True)}
            values[node] = self._value(node, values, inputs)
            for used in self._drops.get(node, ()):
                values.pop(used, None)
        raise InternalError(f"`{self._graph.where}`: has no outputs")

    def _value(
        self, node: Node, values: Mapping[Node, Any], inputs: Mapping[str, torch.Tensor]
    ) -> Any:
        if node.name in self._given:
            return self._given[node.name](values.__getitem__)
        if node.name in self._inputs:
            return inputs[self._inputs[node.name]].to(self._device)
        if node.op == "placeholder":
            return self._constants[node.name]
        if not callable(node.target):
            raise InternalError(f"`{node.name}`: cannot be computed by itself")
        args, kwargs = torch.fx.map_arg((node.args, node.kwargs), values.__getitem__)
        return self._call(node.target, args, kwargs)
