"""Weights of one block learned together, so that the block's output stays: AdaRound's variables, BRECQ's loss.

BRECQ: Li et al., "BRECQ: Pushing the Limit of Post-Training Quantization by Block Reconstruction", 2021. What is learned
begins at a rounding that is good for every layer alone, and is taken where the whole block gains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from qdx.exporter.measure.mixed_run import Calls

if TYPE_CHECKING:
    from torch.fx import Node

    from qdx.exporter.formats.code_grid import CodeGrid
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.tune.blocks import Block

__all__ = ["Rounded", "Shown", "reconstructed"]

_LOW: Final = -0.1
_HIGH: Final = 1.1
"""The stretched sigmoid's ends, as in `adaround`."""
_LEANING: Final = 0.2
"""How far an element is from where it begins, in parts of the way to the other level."""
_TRAVEL: Final = 10.0
"""How far a variable can go in all steps; it begins about one away from the middle."""
_PENALTY: Final = 1.0
_SHARPEST: Final = 2.0
_SOFTEST: Final = 20.0
_TINY: Final = 1e-12

Values = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Shown:
    """What one call shows of a block.

    Attributes:
        inputs: What it reads, by name of the node.
        outputs: What it is to answer, likewise.
    """

    inputs: Values = field(repr=False)
    outputs: Values = field(repr=False)


@dataclass(frozen=True)
class Rounded:
    """A weight that is learned.

    Attributes:
        values: float32, of its own shape.
        places: Of levels of the grid, where it begins: int64 [rows, columns].
        grid: Of the matrix.
    """

    values: torch.Tensor = field(repr=False)
    places: torch.Tensor = field(repr=False)
    grid: CodeGrid = field(repr=False)

    def stands_for(self, places: torch.Tensor) -> torch.Tensor:
        """The weight with levels at these places."""
        return self.grid.values(places).reshape(self.values.shape)


def reconstructed(
    graph: Graph,
    block: Block,
    shown: Sequence[Shown],
    weights: Mapping[str, Rounded],
    others: Values,
    *,
    steps: int,
) -> dict[str, torch.Tensor]:
    """Learns the weights of a block.

    Memory holds the activations of one call of the block, and five copies of its weights.

    Args:
        graph: The float graph.
        block: A part of it.
        shown: Calls of the block.
        weights: Those that are learned, by name.
        others: Parameters by name that are not those of the graph.
        steps: Of the optimizer, each with one call.

    Returns:
        Places of levels by name; where the block gains nothing, those that it began with.
    """
    run = _BlockRun(graph, block, others)
    soft = {name: _Soft(one) for name, one in weights.items()}
    started = {name: one.places for name, one in weights.items()}
    before = _loss_of(run, shown, weights, started)
    if before <= _TINY:
        return started
    optimizer = torch.optim.Adam([one.variable for one in soft.values()], lr=_TRAVEL / steps)
    order = torch.Generator().manual_seed(0)
    elements = sum(one.variable.numel() for one in soft.values())
    for step in range(1, steps + 1):
        call = shown[int(torch.randint(len(shown), (), generator=order))]
        power = _SOFTEST + (_SHARPEST - _SOFTEST) * step / steps
        with torch.enable_grad():
            shares = {name: one.shares() for name, one in soft.items()}
            made = {name: one.mixed(shares[name]) for name, one in soft.items()}
            penalty = sum(
                ((1 - (2 * one - 1).abs().pow(power)).sum() for one in shares.values()),
                torch.zeros(()),
            )
            loss = run.loss(call, made) / before + _PENALTY * penalty / elements
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        optimizer.step()
    learned = {name: one.places() for name, one in soft.items()}
    return learned if _loss_of(run, shown, weights, learned) < before else started


def _loss_of(
    run: _BlockRun,
    shown: Sequence[Shown],
    weights: Mapping[str, Rounded],
    places: Mapping[str, torch.Tensor],
) -> float:
    """The mean loss of all calls."""
    made = {name: one.stands_for(places[name]) for name, one in weights.items()}
    with torch.no_grad():
        return sum(float(run.loss(call, made)) for call in shown) / len(shown)


class _Soft:
    """The elements of a weight between two levels each."""

    def __init__(self, weight: Rounded) -> None:
        grid, places = weight.grid, weight.places
        matrix = weight.values.reshape(places.shape)
        # The level where it begins, and that on the other side of the float value.
        above = grid.values(places) > matrix
        self._below = (places - above.to(torch.int64)).clamp_(0, grid.levels.shape[-1] - 2)
        self._shape = weight.values.shape
        self._lower = grid.values(self._below)
        self._gap = grid.values(self._below + 1) - self._lower
        start = torch.where(places > self._below, 1 - _LEANING, _LEANING)
        self.variable = torch.log((start - _LOW) / (_HIGH - start)).requires_grad_()

    def shares(self) -> torch.Tensor:
        """How much of the way to the upper level each element goes."""
        squashed = torch.sigmoid(self.variable)
        return (squashed * (_HIGH - _LOW) + _LOW).clamp(0, 1)

    def mixed(self, shares: torch.Tensor) -> torch.Tensor:
        """The weight."""
        return (self._lower + shares * self._gap).reshape(self._shape)

    def places(self) -> torch.Tensor:
        """The nearer level of each element."""
        return self._below + (self.variable.detach() > 0).to(torch.int64)


class _BlockRun:
    """A block with weights that may be others than the graph's."""

    def __init__(self, graph: Graph, block: Block, others: Values) -> None:
        self._block = block
        self._calls = Calls()
        aliases = graph.weights.aliases
        names = {place: aliases.get(name, name) for place, name in graph.parameters.items()}
        read = {source.name for node in block.nodes for source in node.all_input_nodes}
        self._names = {place: name for place, name in names.items() if place in read}
        self._buffers = {name: one for name, one in graph.buffers.items() if name in read}
        self._known = {
            name: others[name] if name in others else graph.weights[name].read()
            for name in self._names.values()
            if name not in block.weights
        }

    def loss(self, call: Shown, made: Values) -> torch.Tensor:
        """Squared error over squared value, added up over the outputs."""
        found = self._outputs(call.inputs, made)
        errors = [
            (found[name] - wanted).square().sum() / wanted.square().sum().clamp(min=_TINY)
            for name, wanted in call.outputs.items()
        ]
        return sum(errors[1:], errors[0])

    def _outputs(self, inputs: Values, made: Values) -> dict[str, torch.Tensor]:
        values: dict[str, torch.Tensor] = dict(inputs)

        def value(node: Node) -> torch.Tensor:
            if node.name in values:
                return values[node.name]
            if node.name in self._buffers:
                return self._buffers[node.name]
            name = self._names[node.name]
            return made[name] if name in made else self._known[name]

        with sdpa_kernel(SDPBackend.MATH):
            for node in self._block.nodes:
                values[node.name] = self._calls.evaluated(node, value)
        return {name: values[name] for name in self._block.outputs}
