"""What a quantized graph computes: live in PyTorch, or as it was stored. Lockstep feeds the artifact with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import sympy
import torch

from qdx.backends.lockstep import quantizers
from qdx.exporter.capture.symbols import settled
from qdx.exporter.graph.execute.interpreter import mutates, run_together

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.graph import Graph

__all__ = ["Computed", "ComputedGraph", "Observe", "Tensors", "quantizer_shapes", "value_bytes"]

Observe = Callable[[torch.Tensor], None]
Tensors = Mapping[str, torch.Tensor]


class Computed(Protocol):
    """The values of a quantized graph in several calls."""

    @property
    def copies(self) -> bool:
        """Whether a value may change after it was shown."""

    @property
    def sources(self) -> Mapping[str, str]:
        """By quantizer, the name of the value that it is given; in the order in which the graph runs them."""

    @property
    def places(self) -> Mapping[str, str]:
        """By quantizer, the module that it serves."""

    def sizes_bytes(self, position: int, inputs: Tensors, names: Sequence[str]) -> dict[str, int]:
        """Sizes in float32 of what quantizers are given.

        Args:
            position: Of the call.
            inputs: Of the graph in that call.
            names: Of the quantizers.
        """

    def run(
        self,
        calls: Sequence[Tensors],
        observers: Sequence[Mapping[str, Observe]],
        between: Callable[[], None],
    ) -> Sequence[Tensors]:
        """Shows the values of all calls side by side, and returns the outputs of each.

        Args:
            calls: Inputs of each.
            observers: Of each, by the name of a value, what it is shown to.
            between: Called whenever observers have seen a value of every call.
        """


class ComputedGraph:
    """A graph that computes in PyTorch.

    Args:
        graph: The graph.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._nodes = quantizers(graph)
        self.copies = mutates(graph)
        self.sources = {name: node.all_input_nodes[0].name for name, node in self._nodes.items()}
        self.places = {name: _module_of(node) for name, node in self._nodes.items()}

    def sizes_bytes(self, position: int, inputs: Tensors, names: Sequence[str]) -> dict[str, int]:  # noqa: ARG002
        """See `Computed`."""
        return value_bytes(self._graph, inputs, {name: self._nodes[name] for name in names})

    def run(
        self,
        calls: Sequence[Tensors],
        observers: Sequence[Mapping[str, Observe]],
        between: Callable[[], None],
    ) -> Sequence[Tensors]:
        """See `Computed`."""
        return run_together(self._graph, list(zip(calls, observers, strict=True)), between=between)


def value_bytes(
    graph: Graph, inputs: Tensors, nodes: Mapping[str, torch.fx.Node]
) -> dict[str, int]:
    """Sizes in float32 of what the quantizers are given in a call, by their names."""
    sizes = _open_sizes(graph, inputs)
    found = {}
    for name, node in nodes.items():
        shape = map(settled, node.all_input_nodes[0].meta["val"].shape)
        counts = (size if isinstance(size, int) else int(size.subs(sizes)) for size in shape)
        found[name] = math.prod(counts) * torch.float32.itemsize
    return found


def quantizer_shapes(graph: Graph) -> dict[str, tuple[int | None, ...]]:
    """Shapes of the inputs of the graph's quantizers, for `Backend.open_lockstep`; None for open sizes."""
    found = {}
    for name, node in quantizers(graph).items():
        source = node.all_input_nodes[0]
        found[name] = tuple(
            size if isinstance(size, int) else None for size in source.meta["val"].shape
        )
    return found


def _open_sizes(graph: Graph, inputs: Tensors) -> dict[sympy.Symbol, int]:
    """The sizes that a call gives to the symbols of a graph."""
    by_name = {node.name: node for node in graph.program.graph.nodes if node.op == "placeholder"}
    return {
        size: actual
        for name, placeholder in graph.placeholders.items()
        for size, actual in zip(
            map(settled, by_name[placeholder].meta["val"].shape), inputs[name].shape, strict=True
        )
        if isinstance(size, sympy.Symbol)
    }


def _module_of(node: torch.fx.Node) -> str:
    stack = node.meta.get("nn_module_stack") or {"": ("", None)}
    return str(list(stack.values())[-1][0]).removeprefix("module.")
