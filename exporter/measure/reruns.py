"""One call of a float graph, computed again and again with some sites as their quantized graphs compute them.

What lies before a changed site has the values of the first run, which are kept: a rerun computes the changed sites and
what depends on them. Where the values of a whole run do not fit into memory, those are kept that are alive where a
rerun begins, and it computes all that comes after. The first run is that of the float graph, or has sites quantized
that most reruns have.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch.fx import Node

from qdx.exporter.graph.analysis.sites import sites as find_sites
from qdx.exporter.graph.execute.interpreter import mutates
from qdx.exporter.measure.mixed_run import Calls, Reader

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.measure.mixed_run import Pair

__all__ = ["FloatGraph", "Reruns"]

_Outputs = dict[str, torch.Tensor]


class FloatGraph:
    """A float graph and what depends on what in it; made once for all calls.

    Args:
        graph: In the form that is quantized. Weights are read whenever they are used: see `WeightCache`.

    Attributes:
        graph: As given.
        nodes: In order, without the outputs.
        site_nodes: Name of each site's node, by key.
        mutates: Whether operations change tensors in place, so that no value of a run can be kept.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes = tuple(n for n in graph.program.graph.nodes if n.op != "output")
        self.site_nodes = {site.key: site.node for site in find_sites(graph)}
        self.mutates = mutates(graph)
        self.read = Reader(graph)
        self.inputs = frozenset(graph.placeholders.values())
        self._index = {node.name: place for place, node in enumerate(self.nodes)}
        end = len(self.nodes)
        self._last_use = {
            node.name: max((self._index.get(user.name, end) for user in node.users), default=place)
            for place, node in enumerate(self.nodes)
        }
        self._behind: dict[frozenset[str], tuple[Node, ...]] = {}
        self._ends = {node: self._read_last_by(node) for node in self.nodes}
        self.evaluated = Calls().evaluated

    def first_of(self, keys: Collection[str]) -> int:
        """Where the first of some sites stands among the nodes."""
        return min(self._index[self.site_nodes[key]] for key in keys)

    def behind(self, keys: Collection[str]) -> tuple[Node, ...]:
        """The nodes of some sites and all that depend on them, in order."""
        names = frozenset(self.site_nodes[key] for key in keys)
        if names not in self._behind:
            found: dict[Node, None] = {}
            for node in self.nodes[self.first_of(keys) :]:
                if node.name in names or any(one in found for one in node.all_input_nodes):
                    found[node] = None
            self._behind[names] = tuple(found)
        return self._behind[names]

    def from_first(self, keys: Collection[str]) -> tuple[Node, ...]:
        """The first of some sites and all nodes after it."""
        return self.nodes[self.first_of(keys) :]

    def ends(self, node: Node) -> tuple[str, ...]:
        """What is read for the last time by a node, itself where nothing reads it."""
        return self._ends[node]

    def _read_last_by(self, node: Node) -> tuple[str, ...]:
        place = self._index[node.name]
        return tuple(
            one.name for one in (node, *node.all_input_nodes) if self._last_use[one.name] == place
        )

    def alive_after(self, node: Node) -> frozenset[str]:
        """The nodes before one and itself that something behind it reads."""
        place = self._index[node.name]
        nodes = self.nodes[: place + 1]
        return frozenset(one.name for one in nodes if self._last_use[one.name] > place)

    def outputs(self, values: Mapping[str, Any]) -> _Outputs:
        """The outputs by name, of the values of a run."""
        (results,) = self.graph.program.graph.output_node().args
        assert isinstance(results, list | tuple)
        return {
            spec.name: values[result.name] if result.name in values else self.read(result)
            for spec, result in zip(self.graph.outputs, results, strict=True)
            if isinstance(result, Node)
        }


class Reruns:
    """One call.

    Args:
        graph: The float graph.
        inputs: Every input by name, with the dtype and shape that the graph declares.
        limit_bytes: Memory for values of the first run. Beyond it those alone are kept that are alive where a rerun begins;
            reruns are then to begin later and later, or the first run starts again.
        first: What the first run has quantized, as in `run`; nothing makes it the float run.

    Attributes:
        outputs: Of the first run.
        keeps_all: Whether all values of the first run are kept.
        kept_bytes: Of the values that are kept, or were when they became too many.
        computed: Number of nodes that reruns have computed.
        saved: Number of nodes whose values reruns took from the first run.
    """

    def __init__(
        self,
        graph: FloatGraph,
        inputs: Mapping[str, torch.Tensor],
        limit_bytes: int,
        first: Mapping[str, Pair] = MappingProxyType({}),
    ) -> None:
        self._first = _by_node(graph, first)
        self._graph = graph
        self._inputs = {
            placeholder: inputs[name].clone()
            for name, placeholder in graph.graph.placeholders.items()
        }
        self._total = sum(node.op != "placeholder" for node in graph.nodes)
        self.computed = self.saved = 0
        self._limit_bytes = 0 if graph.mutates else limit_bytes
        self.keeps_all = self._limit_bytes > 0
        self._kept: set[int] = set()
        self.kept_bytes = 0
        self._start_again()
        self._advance(len(graph.nodes))
        self.outputs = graph.outputs(self._values)

    def run(self, changed: Mapping[str, Pair]) -> _Outputs:
        """The outputs with some sites as quantized graphs compute them.

        Args:
            changed: All of these sites by key, each with the pair whose quantized graph computes it; the others are float. The
                float graphs of the pairs have the nodes of this one.
        """
        pairs = _by_node(self._graph, changed)
        differing = [
            key
            for node in pairs.keys() | self._first.keys()
            for key, pair in (pairs.get(node) or self._first[node],)
            if pairs.get(node) != self._first.get(node)
        ]
        if not differing:
            return dict(self.outputs)
        todo = self._todo(differing)
        own: dict[str, Any] = {}
        known = self._values
        both = ChainMap(own, known)

        def value(node: Node) -> Any:
            if node.name in own:
                return own[node.name]
            return known[node.name] if node.name in known else self._graph.read(node)

        with torch.no_grad():
            for node in todo:
                if node.op == "placeholder":
                    continue
                if node.name in pairs:
                    key, pair = pairs[node.name]
                    own[node.name] = pair.site_result(key, both)
                else:
                    own[node.name] = self._graph.evaluated(node, value)
                self.computed += 1
                for name in self._graph.ends(node):
                    own.pop(name, None)
        self.saved += self._total - len(todo)
        return self._graph.outputs(both)

    def _todo(self, keys: Collection[str]) -> tuple[Node, ...]:
        """What a rerun computes."""
        if self.keeps_all:
            return self._graph.behind(keys)
        if self._graph.mutates:
            self._start_again()
            return self._graph.nodes
        place = self._graph.first_of(keys)
        if place < self._place:
            self._start_again()
        self._advance(place)
        return self._graph.from_first(keys)

    def _start_again(self) -> None:
        self._values: dict[str, Any] = dict(self._inputs)
        if self._graph.mutates:
            self._values = {name: one.clone() for name, one in self._inputs.items()}
        self._place = 0

    def _advance(self, place: int) -> None:
        """Computes the first run up to a node."""
        graph = self._graph

        def value(node: Node) -> Any:
            return self._values[node.name] if node.name in self._values else graph.read(node)

        with torch.no_grad():
            for node in graph.nodes[self._place : place]:
                if node.op != "placeholder":
                    if node.name in self._first:
                        key, pair = self._first[node.name]
                        found: Any = pair.site_result(key, self._values)
                    else:
                        found = graph.evaluated(node, value)
                    self._values[node.name] = found
                    self._account(found, node)
                if not self.keeps_all:
                    for name in graph.ends(node):
                        if name not in graph.inputs:
                            self._values.pop(name, None)
        self._place = place

    def _account(self, found: Any, node: Node) -> None:
        """Counts what is kept, and keeps no more than is alive once that is too much."""
        if not self.keeps_all:
            return
        for tensor in found if isinstance(found, list | tuple) else (found,):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage.data_ptr() not in self._kept:  # a view has the memory of another
                    self._kept.add(storage.data_ptr())
                    self.kept_bytes += storage.nbytes()
        if self.kept_bytes > self._limit_bytes:
            self.keeps_all = False
            alive = self._graph.inputs | self._graph.alive_after(node)
            self._values = {name: one for name, one in self._values.items() if name in alive}


def _by_node(graph: FloatGraph, changed: Mapping[str, Pair]) -> dict[str, tuple[str, Pair]]:
    """Sites and their pairs by name of the site's node."""
    return {graph.site_nodes[key]: (key, pair) for key, pair in changed.items()}
