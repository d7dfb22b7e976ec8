"""A float graph run node by node, with chosen sites computed as its quantized graph computes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.fx import Node

from qdx.exporter.errors import InternalError
from qdx.exporter.graph.analysis.sites import sites as find_sites
from qdx.exporter.graph.ir.adapters import is_beside

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.transforms.placement import SitePlacement
    from qdx.exporter.transforms.recipe import Recipe

__all__ = ["Calls", "Pair", "Reader", "Walk", "evaluated"]

_QDX: Final = torch.ops.qdx
_ATEN: Final = torch.ops.aten


class Pair:
    """A float graph and its quantized one, site by site.

    A site's result has what a low-rank branch adds to it, if the float graph computes it without one.

    Args:
        base: The float graph in the form that was quantized, with low-rank branches or without.
        quantized: The quantized graph.
        recipe: What led from one to the other.
    """

    def __init__(self, base: Graph, quantized: Graph, recipe: Recipe) -> None:
        self.base = base
        self.quantized = quantized
        self.recipe = recipe
        self.nodes: dict[str, Node] = {n.name: n for n in base.program.graph.nodes}
        self.twins: dict[str, Node] = {n.name: n for n in quantized.program.graph.nodes}
        keys = {site.key: site for site in find_sites(base)}
        self.sites = {placed.key: keys[placed.key] for placed in recipe.placement.sites}
        self.key_of = {site.node: key for key, site in self.sites.items()}
        self.rounds_inputs = frozenset(p.key for p in recipe.placement.sites if p.inputs)
        self.results = {p.key: self._result(p) for p in recipe.placement.sites}
        self.stands_for = {node.name: self.sites[key].node for key, node in self.results.items()}
        self._reads = Reader(quantized)
        self._calls = Calls()

    def site_result(self, key: str, values: Mapping[str, Any]) -> torch.Tensor:
        """A site's result as the quantized graph computes it from values of the float graph.

        Args:
            key: The site.
            values: By name of the float graph's nodes: its inputs, and all that the site reads.
        """
        found = _SiteRun(self, key, values)(self.results[key])
        assert isinstance(found, torch.Tensor)
        return found

    def read(self, node: Node) -> torch.Tensor:
        """A parameter, buffer or constant of the quantized graph."""
        return self._reads(node)

    def evaluated(self, node: Node, value: Callable[[Node], Any]) -> Any:
        """What a node of the quantized graph computes from the values of those that it reads."""
        return self._calls.evaluated(node, value)

    def _result(self, placed: SitePlacement) -> Node:
        """The quantized graph's node of a site's result, behind what scales it back, adds its bias, and adds its branch."""
        node = self.twins[self.sites[placed.key].node]
        if placed.output is not None:
            while node.target is not _QDX.dequantize_tensor.default:
                node = self._inserted_user(node)
        factors = sum(q.groups is not None or q.token for q in placed.inputs.values())
        for _ in range(factors):
            node = self._inserted_user(node, _ATEN.mul.Tensor)
        if factors:  # the bias comes after the factors, where there is one
            node = next((u for u in self._sums(node) if not is_beside(u)), node)
        return next((u for u in self._sums(node) if is_beside(u)), node)

    def _sums(self, node: Node) -> list[Node]:
        return [user for user in self._inserted(node) if user.target is _ATEN.add.Tensor]

    def _inserted_user(self, node: Node, target: Any = None) -> Node:
        for user in self._inserted(node):
            if target in (None, user.target):
                return user
        raise InternalError(f"`{self.base.where}`: nothing was inserted behind `{node.name}`")

    def _inserted(self, node: Node) -> list[Node]:
        return [user for user in node.users if user.name not in self.nodes]


class _SiteRun:
    """Values of nodes of a quantized graph around one site, from those of the float graph.

    It is no function that calls itself: that would be a cycle, which holds all values until Python looks for such.
    """

    def __init__(self, pair: Pair, key: str, values: Mapping[str, Any]) -> None:
        self._pair = pair
        self._key = key
        self._values = values
        self._goal = pair.results[key]
        self._made: dict[str, Any] = {}

    def __call__(self, node: Node) -> Any:
        """The value of a node."""
        pair, name = self._pair, node.name
        if name in self._made:
            return self._made[name]
        stands_for = pair.stands_for.get(name)
        if node is not self._goal and stands_for is not None:
            return self._values[stands_for]
        if node.op == "placeholder":
            return self._values[name] if name in self._values else pair.read(node)
        inside = pair.key_of.get(name) == self._key
        if name in pair.nodes and not inside and name in self._values:
            return self._values[name]
        self._made[name] = pair.evaluated(node, self)
        return self._made[name]


class Walk:
    """One run. Values are dropped after their last use in the float graph.

    Args:
        pair: The graphs.
        inputs: Every input by name, with the dtype and shape that the graph declares.
        chosen: Keys of the sites that are computed as quantized.
    """

    def __init__(
        self, pair: Pair, inputs: Mapping[str, torch.Tensor], chosen: AbstractSet[str]
    ) -> None:
        self._pair = pair
        self._chosen = chosen
        self._values: dict[str, Any] = {
            placeholder: inputs[name].clone()
            for name, placeholder in pair.base.placeholders.items()
        }
        self._inputs = frozenset(self._values)
        self._base_reads = Reader(pair.base)
        self._left = {node.name: len(node.users) for node in pair.nodes.values()}

    def step(self, node: Node) -> Any:
        """Computes the next node of the float graph and returns its value."""
        if node.op == "placeholder":
            return None
        key = self._pair.key_of.get(node.name)
        if key is not None and key in self._chosen:
            value = self.as_quantized(key)
        else:
            value = evaluated(node, self._value)
        self._values[node.name] = value
        return value

    def drop(self, node: Node) -> None:
        """Lets go of values that nothing needs behind a node."""
        for source in node.all_input_nodes:
            self._left[source.name] -= 1
            if self._left[source.name] == 0 and source.name not in self._inputs:
                self._values.pop(source.name, None)

    def as_quantized(self, key: str) -> torch.Tensor:
        """A site's result as the quantized graph computes it from this run's values."""
        return self._pair.site_result(key, self._values)

    def finish(self) -> dict[str, torch.Tensor]:
        """The outputs by name, when every node has been computed."""
        (results,) = self._pair.base.program.graph.output_node().args
        assert isinstance(results, list | tuple)
        return {
            spec.name: self._value(result)
            for spec, result in zip(self._pair.base.outputs, results, strict=True)
            if isinstance(result, Node)
        }

    def run(self) -> dict[str, torch.Tensor]:
        """Computes everything and returns the outputs."""
        with torch.no_grad():
            for node in self._pair.nodes.values():
                if node.op != "output":
                    self.step(node)
                    self.drop(node)
        return self.finish()

    def _value(self, node: Node) -> Any:
        if node.name in self._values:
            return self._values[node.name]
        return self._base_reads(node)


class Reader:
    """Real values of a graph's parameters, buffers and constants, read when asked for."""

    def __init__(self, graph: Graph) -> None:
        self._parameters = graph.parameters
        self._buffers = graph.buffers
        self._weights = graph.weights

    def __call__(self, node: Node) -> torch.Tensor:
        """The value of a placeholder."""
        if node.name in self._parameters:
            return self._weights[self._parameters[node.name]].read()
        return self._buffers[node.name]


def evaluated(node: Node, value: Callable[[Node], Any]) -> Any:
    """What a node computes from the values of those that it reads."""
    return _prepared(node)(value)


class Calls:
    """Nodes that are computed many times: what their arguments are is looked up once."""

    def __init__(self) -> None:
        self._known: dict[Node, _Call] = {}

    def evaluated(self, node: Node, value: Callable[[Node], Any]) -> Any:
        """What a node computes from the values of those that it reads."""
        call = self._known.get(node)
        if call is None:
            call = self._known[node] = _prepared(node)
        return call(value)


_Call = Callable[[Callable[[Node], Any]], Any]


def _prepared(node: Node) -> _Call:
    target, args, kwargs = node.target, node.args, node.kwargs
    if node.op != "call_function" or not callable(target):
        raise InternalError(f"`{node.name}`: cannot be computed by itself")
    if _nodes_in([*(one for one in args if not isinstance(one, Node)), *kwargs.values()]):

        def mapped(value: Callable[[Node], Any]) -> Any:
            return target(*torch.fx.map_arg(args, value), **torch.fx.map_arg(kwargs, value))

        return mapped

    def plain(value: Callable[[Node], Any]) -> Any:
        return target(*[value(one) if isinstance(one, Node) else one for one in args], **kwargs)

    return plain


def _nodes_in(arguments: list[Any]) -> list[Node]:
    found: list[Node] = []
    torch.fx.map_arg(arguments, found.append)
    return found
