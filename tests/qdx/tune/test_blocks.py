"""Blocks of a graph, and their weights learned together."""

from __future__ import annotations

import torch
from torch import nn

from qdx.exporter.formats.quantization import WeightQuantization
from qdx.exporter.formats.registry import format_of
from qdx.exporter.graph.analysis.sites import sites as find_sites
from qdx.exporter.graph.execute.interpreter import Executor
from qdx.tune.blocks import find_blocks
from qdx.tune.reconstruct import Rounded, Shown, reconstructed
from tests.support.traced_modules import graph_of_module


class Residual(nn.Module):
    """Two layers beside a skip."""

    def __init__(self, width):
        super().__init__()
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x):
        return x + self.second(torch.relu(self.first(x)))


class Model(nn.Module):
    """Residual blocks in a list, one of them with a list in it, and a layer in front."""

    def __init__(self, width=12):
        super().__init__()
        self.enter = nn.Linear(width, width)
        self.blocks = nn.ModuleList([Residual(width), Residual(width)])
        self.blocks[1].inner = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x):
        x = self.blocks[0](self.enter(x))
        return self.blocks[1].inner[0](self.blocks[1](x))


def traced(module):
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.4)
    return graph_of_module(module, {"x": torch.zeros(2, 5, 12)}, weights_of=module)


def blocks_of(graph):
    return find_blocks(graph, {site.weight: site.fqn for site in find_sites(graph) if site.weight})


def test_a_block_is_the_innermost_member_of_a_list_with_two_weights():
    graph = traced(Model())
    found = {block.name: block for block in blocks_of(graph)}

    assert list(found) == ["blocks.0", "blocks.1"]
    assert found["blocks.0"].weights == ("blocks.0.first.weight", "blocks.0.second.weight")
    assert found["blocks.1"].weights[2] == "blocks.1.inner.0.weight"
    assert len(found["blocks.0"].inputs) == len(found["blocks.0"].outputs) == 1
    assert found["blocks.1"].inputs == found["blocks.0"].outputs


class Twice(nn.Module):
    """A block that is called again behind a layer outside of it."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([Residual(12)])
        self.between = nn.Linear(12, 12)

    def forward(self, x):
        return self.blocks[0](self.between(self.blocks[0](x)))


def test_a_block_in_several_pieces_is_none():
    assert blocks_of(traced(Twice())) == ()


def keeping(seen, name):
    return lambda value: seen.update({name: value.clone()})


def shown_by(graph, block, count=6):
    found = []
    for number in range(count):
        value = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(number))
        seen = {}
        names = {*block.inputs, *block.outputs}
        observe = {name: keeping(seen, name) for name in names}
        Executor(graph).run({graph.inputs[0].name: value}, observe=observe)
        found.append(Shown({n: seen[n] for n in block.inputs}, {n: seen[n] for n in block.outputs}))
    return found


def lost(graph, block, shown, weights, places):
    from qdx.tune.reconstruct import _BlockRun, _loss_of

    return _loss_of(_BlockRun(graph, block, {}), shown, weights, places)


def starting(graph, block, dtype="int3"):
    found = {}
    for name in block.weights:
        values = graph.weights[name].read()
        grid = format_of(dtype).grid(values, WeightQuantization(dtype))
        found[name] = Rounded(values, grid.nearest(values), grid)
    return found


def test_learned_together_the_blocks_output_loses_less():
    graph = traced(Model())
    block = blocks_of(graph)[0]
    shown, weights = shown_by(graph, block), starting(graph, block)
    start = {name: one.places for name, one in weights.items()}
    found = reconstructed(graph, block, shown, weights, {}, steps=300)
    again = reconstructed(graph, block, shown, weights, {}, steps=300)

    assert lost(graph, block, shown, weights, found) < 0.7 * lost(
        graph, block, shown, weights, start
    )
    assert all(torch.equal(found[name], again[name]) for name in found)


def test_what_gains_nothing_stays_as_it_began():
    graph = traced(Model())
    block = blocks_of(graph)[0]
    weights = starting(graph, block)
    exact = [
        Shown(one.inputs, {name: one.outputs[name] * torch.nan for name in one.outputs})
        for one in shown_by(graph, block)
    ]
    found = reconstructed(graph, block, exact, weights, {}, steps=2)

    assert all(torch.equal(found[name], one.places) for name, one in weights.items())


def test_weights_that_were_learned_elsewhere_count_as_they_are():
    graph = traced(Model())
    block = blocks_of(graph)[0]
    shown, weights = shown_by(graph, block), starting(graph, block)
    only = {"blocks.0.first.weight": weights["blocks.0.first.weight"]}
    part = type(block)(block.name, block.nodes, block.inputs, block.outputs, tuple(only))
    zero = {"blocks.0.second.weight": torch.zeros(12, 12)}
    found = reconstructed(graph, part, shown, only, zero, steps=20)

    # Behind a layer of zeros nothing that is learned changes the output.
    assert torch.equal(found["blocks.0.first.weight"], only["blocks.0.first.weight"].places)
