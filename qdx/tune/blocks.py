"""Blocks: the parts of a graph whose weights are learned together, such as one residual block or one transformer block.

A block is a member of a list of modules, the innermost one that holds two learned weights or more. What it computes is all
that was traced inside of it; inner blocks belong to it, with their own weights as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch.fx import Node

from qdx.exporter.graph.analysis.flow import Flow

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.graph import Graph

__all__ = ["Block", "find_blocks"]


@dataclass(frozen=True)
class Block:
    """A part of a graph as a function.

    Attributes:
        name: Of its module.
        nodes: What it computes, in order.
        inputs: Names of the nodes that it reads from outside, without parameters and buffers.
        outputs: Names of its nodes that are read from outside.
        weights: Names of the weights that it learns.
    """

    name: str
    nodes: tuple[Node, ...] = field(repr=False)
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: tuple[str, ...]


def find_blocks(graph: Graph, weights: Mapping[str, str]) -> tuple[Block, ...]:
    """Finds the blocks of a graph, in the order in which they end.

    A block is left out that runs in several pieces, or that hands on what is not a tensor: its weights are in none.

    Args:
        graph: A float graph.
        weights: Names of learned weights, each with the module of the operation that uses it.
    """
    held: dict[str, set[str]] = {}
    for name, module in weights.items():
        for prefix in _members(module):
            held.setdefault(prefix, set()).add(name)
    own: dict[str, list[str]] = {}
    for name, module in weights.items():
        fitting = [prefix for prefix in _members(module) if len(held[prefix]) > 1]
        if fitting:
            own.setdefault(fitting[-1], []).append(name)
    known = frozenset(graph.parameters) | frozenset(graph.buffers)
    nodes = [node for node in graph.program.graph.nodes if node.op != "output"]
    modules = {node: Flow.module(node).fqn for node in nodes}
    found = [
        block
        for prefix, names in own.items()
        if (block := _block(prefix, names, nodes, modules, known)) is not None
    ]
    place = {node.name: number for number, node in enumerate(nodes)}
    return tuple(sorted(found, key=lambda block: place[block.nodes[-1].name]))


def _members(module: str) -> list[str]:
    """The members of lists that a module lies in, the outermost first: `blocks.1`, `blocks.1.layers.0`."""
    parts = module.split(".")
    return [".".join(parts[: n + 1]) for n, part in enumerate(parts) if part.isdigit()]


def _block(
    prefix: str,
    weights: list[str],
    nodes: list[Node],
    modules: Mapping[Node, str],
    known: frozenset[str],
) -> Block | None:
    inside = {
        node: None
        for node in nodes
        if node.op == "call_function" and f"{modules[node]}.".startswith(f"{prefix}.")
    }
    read = {
        source: None
        for node in inside
        for source in node.all_input_nodes
        if source not in inside and source.name not in known
    }
    outputs = [node for node in inside if any(user not in inside for user in node.users)]
    behind: set[Node] = set()
    for node in nodes:
        if node not in inside and any(
            one in inside or one in behind for one in node.all_input_nodes
        ):
            behind.add(node)
    tensors = all(isinstance(node.meta.get("val"), torch.Tensor) for node in (*read, *outputs))
    if not outputs or not tensors or behind & read.keys():
        return None
    return Block(
        prefix,
        tuple(inside),
        tuple(node.name for node in read),
        tuple(node.name for node in outputs),
        tuple(weights),
    )
