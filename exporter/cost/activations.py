"""How much memory a run of a graph takes, told from its nodes without running it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, Final

import torch
from torch.fx import Node

from qdx.exporter.cost.workspaces import workspace_bytes
from qdx.exporter.graph.analysis.flow import name_of, shape, words
from qdx.exporter.graph.execute.attention_blocks import find_attention_blocks
from qdx.exporter.graph.ir.graph import Graph

__all__ = ["Peak", "kept_activation_bytes", "peak_activation_bytes", "peak_of_run"]

_SAME_TENSOR: Final = words("dropout dropout_ alpha_dropout feature_dropout")
"""Operators that return their argument itself where nothing is trained, though traces say otherwise."""


@dataclass(frozen=True)
class Peak:
    """The moment of a run at which it holds most.

    Attributes:
        node: Name of the node that computes then.
        activation_bytes: Of the tensors alive: the graph's inputs, what is still to be used, and the node's result.
        weight_bytes: Of the weights that the node takes.
        workspace_bytes: Of what its kernel needs beside them.
    """

    node: str
    activation_bytes: int
    weight_bytes: int
    workspace_bytes: int

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return self.activation_bytes + self.weight_bytes + self.workspace_bytes


def peak_activation_bytes(graph: Graph, *, late_weights: bool = True) -> int:
    """Returns the bytes that a run of a graph takes at most; see `peak_of_run`."""
    return peak_of_run(graph, late_weights=late_weights).total_bytes


def kept_activation_bytes(graph: Graph) -> int:
    """Returns the bytes of a run that drops nothing, as one does through which a backward pass goes."""
    return sum(_Storages(graph, tuple(graph.program.graph.nodes)).size_bytes.values())


def peak_of_run(graph: Graph, *, late_weights: bool = True, workspaces: bool = True) -> Peak:
    """Finds the moment at which `Graph.run` holds most.

    A value dies after its last use, and views share what they are views of. Open dimensions have the sizes of the
    traced call. Buffers and constants are not counted: they are there before.

    Args:
        graph: Any graph with the values of its trace.
        late_weights: Whether each operation reads its weights anew, as a run does whose weights nobody keeps.
        workspaces: Whether to count what kernels for processors take beside tensors.
    """
    nodes = tuple(graph.program.graph.nodes)
    storages = _Storages(graph, nodes)
    begins, ends = storages.lives()
    best = Peak("", 0, 0, 0)
    alive = 0
    for index, node in enumerate(nodes):
        alive += sum(storages.size_bytes[storage] for storage in begins[index])
        weights = storages.weight_bytes(node) if late_weights else 0
        now = Peak(node.name, alive, weights, workspace_bytes(node) if workspaces else 0)
        best = max(best, now, key=lambda peak: peak.total_bytes)
        alive -= sum(storages.size_bytes[storage] for storage in ends[index])
    return best


class _Storages:
    """The memory behind the values of a graph: which node makes it, and which one is the last to use it."""

    def __init__(self, graph: Graph, nodes: tuple[Node, ...]) -> None:
        self._nodes = nodes
        self._inputs = frozenset(graph.placeholders.values())
        self._parameters = graph.parameters
        self.size_bytes: dict[int, int] = {}
        self._stored: dict[Node, tuple[int, ...]] = {}
        self._begin: dict[int, int] = {}
        in_blocks = _in_blocks(graph)
        there = {node for node in nodes if node.op != "call_function"} - self._given()
        for index, node in enumerate(nodes):
            if node.op == "output":
                continue
            self._stored[node] = found = tuple(self._find(node))
            for storage, size_bytes in zip(found, _sizes(node), strict=True):
                if storage not in self.size_bytes:
                    held = int(size_bytes * in_blocks.get(node, 1.0))
                    self.size_bytes[storage] = 0 if node in there else held
                    self._begin[storage] = index

    def lives(self) -> tuple[list[list[int]], list[list[int]]]:
        """For each node what it brings into being, and what is not needed any more after it."""
        end = dict.fromkeys(self.size_bytes, 0)
        last = len(self._nodes) - 1
        for index, node in enumerate(self._nodes):
            for source in node.all_input_nodes:
                for storage in self._stored[source]:
                    end[storage] = max(end[storage], index)
        for node, found in self._stored.items():
            if (
                node.name in self._inputs or not node.users
            ):  # the caller holds the one, nobody drops the other
                end.update(dict.fromkeys(found, last))
        begins: list[list[int]] = [[] for _ in self._nodes]
        ends: list[list[int]] = [[] for _ in self._nodes]
        for storage, index in self._begin.items():
            begins[index].append(storage)
            ends[end[storage]].append(storage)
        return begins, ends

    def weight_bytes(self, node: Node) -> int:
        """Bytes of the parameters that a node takes."""
        taken = (one for one in node.all_input_nodes if one.name in self._parameters)
        return sum(sum(_sizes(one)) for one in taken)

    def _given(self) -> set[Node]:
        return {node for node in self._nodes if node.name in self._inputs}

    def _find(self, node: Node) -> Iterator[int]:
        """Something that is equal for two values that share memory."""
        source = node.args[0] if node.args else None
        if isinstance(source, Node) and _returns_its_argument(node, source):
            yield from self._stored[source]
            return
        for value in _tensors(node.meta.get("val")):
            yield value.untyped_storage()._cdata  # noqa: SLF001  # torch has no other name for it


def _in_blocks(graph: Graph) -> dict[Node, float]:
    """The share of a value that is there at a time, of attention that is computed some queries at a time."""
    return {
        node: blocks.share(shape(blocks.chain[0]))
        for blocks in find_attention_blocks(graph)
        for node in blocks.chain
    }


def _returns_its_argument(node: Node, source: Node) -> bool:
    name = name_of(node)
    if name in _SAME_TENSOR:
        return True
    value, before = node.meta.get("val"), source.meta.get("val")
    if not isinstance(value, torch.Tensor) or not isinstance(before, torch.Tensor):
        return False
    if name == "to":
        return value.dtype == before.dtype and not _asks_for_a_copy(node)
    return name == "contiguous" and before.is_contiguous()


def _asks_for_a_copy(node: Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    names = [argument.name for argument in schema.arguments] if schema is not None else []
    given = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
    return bool(given.get("copy", False))


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _tensors(one)


def _sizes(node: Node) -> tuple[int, ...]:
    """Bytes of the tensors that a node yields, open dimensions at the sizes of the traced call."""
    value = node.meta.get("val")
    if isinstance(value, torch.Tensor):
        return (prod(shape(node)) * value.element_size(),)
    return tuple(one.numel() * one.element_size() for one in _tensors(value))
