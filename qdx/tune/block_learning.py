"""Blocks shown by recorded calls: what each reads and is to answer, as many blocks at once as memory holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Final

import torch

from qdx.exporter.formats.registry import format_of
from qdx.exporter.graph.analysis.flow import shape
from qdx.exporter.graph.execute.interpreter import Executor
from qdx.exporter.graph.ir.learned_codes import LearnedCodes, pack
from qdx.tune.blocks import find_blocks
from qdx.tune.reconstruct import Rounded, Shown, reconstructed
from qdx.tune.weights import with_codes

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.tune.blocks import Block
    from qdx.tune.weights import LearnedWeight

__all__ = ["ACTIVATIONS_BYTES", "BLOCK_CALLS", "block_parts", "learn_blocks"]

ACTIVATIONS_BYTES: Final = 2**30
"""Memory for what blocks read and answer, at once."""
BLOCK_CALLS: Final = 40
"""Calls that a block learns from, of those that are recorded."""
_FLOAT_BYTES: Final = 4

Inputs = Mapping[str, torch.Tensor]
Codes = Mapping[str, torch.Tensor]


def block_parts(
    graph: Graph, weights: Sequence[LearnedWeight], calls: int, limit_bytes: int
) -> list[list[Block]]:
    """The blocks of a graph, in runs whose activations of so many calls fit into memory together."""
    sizes = {node.name: shape(node) for node in graph.program.graph.nodes}
    parts: list[list[Block]] = []
    used = 0
    for block in find_blocks(graph, {one.name: one.module for one in weights}):
        elements = sum(prod(sizes[name]) for name in (*block.inputs, *block.outputs))
        own = elements * _FLOAT_BYTES * calls
        if not parts or used + own > limit_bytes:
            parts.append([])
            used = 0
        parts[-1].append(block)
        used += own
    return parts


def learn_blocks(
    graph: Graph,
    blocks: Sequence[Block],
    weights: Sequence[LearnedWeight],
    codes: Codes,
    calls: Sequence[Inputs],
    told: Callable[[], None],
) -> Iterator[tuple[LearnedWeight, torch.Tensor]]:
    """Learns the weights of some blocks.

    A block reads what the graph with learned weights hands it, and is to answer what the float graph does: so it makes up for
    errors that were made before it.

    Args:
        graph: The float graph.
        blocks: Some of its blocks.
        weights: All that is learned.
        codes: What each layer has learned alone, by name of the weight, as `LearnedCodes.packed`.
        calls: Inputs of recorded calls.
        told: Told of every call, and of every block.

    Yields:
        Every weight of the blocks with its codes.
    """
    by_name = {one.name: one for one in weights}
    rounded = with_codes(graph, weights, codes)
    shown = _shown(graph, rounded, blocks, calls, told)
    for block in blocks:
        start = {name: _rounded(graph, by_name[name], codes[name]) for name in block.weights}
        others = {
            name: rounded.weights[name].read(torch.float32)
            for name in _read_by(block, rounded)
            if name in by_name and name not in start
        }
        steps = by_name[block.weights[0]].asked.scheme.learned_how.steps
        found = reconstructed(graph, block, shown[block.name], start, others, steps=steps)
        del shown[block.name]
        for name, places in found.items():
            grid = start[name].grid
            yield by_name[name], pack(grid.codes(places), grid.width)
        told()


def _shown(
    graph: Graph,
    rounded: Graph,
    blocks: Sequence[Block],
    calls: Sequence[Inputs],
    told: Callable[[], None],
) -> dict[str, list[Shown]]:
    """What calls show of blocks, by name of the block."""
    read = {name for block in blocks for name in block.inputs}
    answered = {name for block in blocks for name in block.outputs}
    floats, others = Executor(graph), Executor(rounded)
    found: dict[str, list[Shown]] = {block.name: [] for block in blocks}
    for call in calls:
        inputs = _values(others, call, read)
        outputs = _values(floats, call, answered)
        for block in blocks:
            own = {name: inputs[name] for name in block.inputs}
            wanted = {name: outputs[name] for name in block.outputs}
            found[block.name].append(Shown(own, wanted))
        told()
    return found


def _values(executor: Executor, call: Inputs, names: set[str]) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}

    def observer(name: str) -> Callable[[torch.Tensor], None]:
        def observe(value: torch.Tensor) -> None:
            found[name] = value.clone()

        return observe

    steps = executor.steps(dict(call), observe={name: observer(name) for name in names})
    with torch.no_grad():
        for _ in steps:
            if len(found) == len(names):
                steps.close()
                break
    return found


def _rounded(graph: Graph, weight: LearnedWeight, codes: torch.Tensor) -> Rounded:
    values = graph.weights[weight.name].read(torch.float32)
    quantization = weight.asked.quantization
    grid = format_of(quantization.dtype).grid(values, quantization)
    grid = grid.select(lambda one: one.reshape(len(values), -1))
    read = LearnedCodes(codes, tuple(values.shape)).read().reshape(len(values), -1)
    return Rounded(values, read.to(torch.int64) - grid.first, grid)


def _read_by(block: Block, graph: Graph) -> set[str]:
    """Names under which the parameters are stored that a block reads."""
    aliases, names = graph.weights.aliases, graph.parameters
    read = {source.name for node in block.nodes for source in node.all_input_nodes}
    return {aliases.get(names[one], names[one]) for one in read & names.keys()}
