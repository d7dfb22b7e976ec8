"""A rerun gives the bits of a whole run, and computes no more than depends on what was changed."""

from __future__ import annotations

import pytest
import torch

from qdx.exporter.calibrate.weight_cache import WeightCache
from qdx.exporter.formats.quantization import WeightQuantization
from qdx.exporter.graph.analysis.sites import sites as find_sites
from qdx.exporter.graph.execute.interpreter import run
from qdx.exporter.measure.mixed_run import Pair, Walk
from qdx.exporter.measure.reruns import FloatGraph, Reruns
from qdx.exporter.transforms.insert_quantizers import InsertQuantizers
from qdx.exporter.transforms.placement import ActivationQuantization, SitePlacement
from qdx.exporter.transforms.recipe import Recipe, quantized_graph
from tests.support.tiny_graphs import graphs_of
from tests.support.traced_modules import graph_of_module

ALL = 1 << 40
NOTHING = 1
WHERE = "unet.forward"
INPUT = ActivationQuantization("int8", 0.05, 3)
TOKEN = ActivationQuantization("int8", 1.0, 0, token=True)


@pytest.fixture(scope="module")
def graph():
    return WeightCache().attach(graphs_of("sd")[WHERE])


@pytest.fixture(scope="module")
def inputs(graph):
    generator = torch.Generator().manual_seed(0)
    return {
        spec.name: torch.full(spec.shape, 400, dtype=getattr(torch, spec.dtype))
        if "int" in spec.dtype
        else torch.randn(spec.shape, generator=generator)
        for spec in graph.inputs
    }


def pair_of(graph, dtype="int4", inputs=None) -> Pair:
    """The graph with every convolution and linear operation quantized alike."""
    placed = tuple(
        SitePlacement(
            site.key,
            weight=WeightQuantization(dtype),
            inputs={} if inputs is None or site.op != "linear" else {0: inputs},
        )
        for site in find_sites(graph)
        if site.op in ("conv2d", "linear")
    )
    recipe = Recipe(graph.where, (InsertQuantizers(placed),))
    return Pair(graph, quantized_graph(graph, recipe), recipe)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


@pytest.mark.parametrize("limit", [ALL, NOTHING])
def test_every_site_alone_has_the_bits_of_a_whole_run(graph, inputs, limit):
    pair = pair_of(graph, inputs=INPUT)
    reruns = Reruns(FloatGraph(graph), inputs, limit)

    assert reruns.keeps_all == (limit == ALL)
    for key in pair.sites:
        assert same(reruns.run({key: pair}), Walk(pair, inputs, {key}).run()), key


@pytest.mark.parametrize("limit", [ALL, NOTHING])
def test_all_sites_together_are_the_quantized_graph(graph, inputs, limit):
    pair = pair_of(graph, inputs=TOKEN)
    reruns = Reruns(FloatGraph(graph), inputs, limit)

    assert same(reruns.run(dict.fromkeys(pair.sites, pair)), run(pair.quantized, inputs))


def test_sites_may_take_different_quantized_graphs(graph, inputs):
    four, eight = pair_of(graph), pair_of(graph, "int8", INPUT)
    keys = list(four.sites)
    halves = dict.fromkeys(keys[::2], four) | dict.fromkeys(keys[1::2], eight)
    mixed = Recipe(WHERE, (InsertQuantizers(tuple(
        SitePlacement(
            key,
            weight=WeightQuantization("int4" if pair is four else "int8"),
            inputs={0: INPUT} if pair is eight and four.sites[key].op == "linear" else {},
        )
        for key, pair in halves.items()
    )),))  # fmt: skip

    found = Reruns(FloatGraph(graph), inputs, ALL).run(halves)

    assert same(found, run(quantized_graph(graph, mixed), inputs))


@pytest.mark.parametrize("limit", [ALL, NOTHING])
def test_from_a_first_run_with_quantized_sites_what_differs_is_computed_again(graph, inputs, limit):
    four, eight = pair_of(graph), pair_of(graph, "int8", INPUT)
    keys = list(four.sites)
    common = dict.fromkeys(keys[3:], four)
    floats = FloatGraph(graph)
    plain, reruns = Reruns(floats, inputs, ALL), Reruns(floats, inputs, limit, common)

    assert same(reruns.outputs, plain.run(common))
    for changed in (
        common,
        common | {keys[5]: eight},  # another option
        common | {keys[0]: four},  # one more
        {key: pair for key, pair in common.items() if key != keys[-1]},  # one fewer
        {},
    ):
        assert same(reruns.run(changed), plain.run(changed))
    if limit == ALL:
        before = reruns.computed
        reruns.run({key: pair for key, pair in common.items() if key != keys[-1]})
        assert reruns.computed - before < 5


def test_nothing_changed_is_the_float_run(graph, inputs):
    reruns = Reruns(FloatGraph(graph), inputs, ALL)

    assert same(reruns.run({}), run(graph, inputs))
    assert same(reruns.outputs, run(graph, inputs))


def test_what_comes_before_a_site_and_beside_it_is_not_computed_again(graph, inputs):
    pair = pair_of(graph)
    floats = FloatGraph(graph)
    reruns = Reruns(floats, inputs, ALL)
    last = list(pair.sites)[-1]
    reruns.run({last: pair})

    assert reruns.computed == len(floats.behind([last])) < 5
    assert reruns.computed + reruns.saved == sum(n.op != "placeholder" for n in floats.nodes)
    nodes = {
        node.name
        for node in floats.behind(["mid_block.attentions.0.transformer_blocks.0.attn2.to_k"])
    }
    # Queries do not depend on keys, although they may come after them.
    assert floats.site_nodes["mid_block.attentions.0.transformer_blocks.0.attn2.to_q"] not in nodes


def test_with_little_memory_earlier_sites_may_come_after_later_ones(graph, inputs):
    pair = pair_of(graph)
    reruns = Reruns(FloatGraph(graph), inputs, NOTHING)
    keys = list(pair.sites)

    later = reruns.run({keys[-1]: pair})
    assert same(reruns.run({keys[0]: pair}), Walk(pair, inputs, {keys[0]}).run())
    assert same(reruns.run({keys[-1]: pair}), later)


def test_inputs_are_not_changed(graph, inputs):
    before = {name: one.clone() for name, one in inputs.items()}
    pair = pair_of(graph)
    Reruns(FloatGraph(graph), inputs, ALL).run(dict.fromkeys(pair.sites, pair))

    assert same(before, inputs)


class InPlace(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.one = torch.nn.Linear(4, 4)
        self.two = torch.nn.Linear(4, 4)

    def forward(self, x):
        y = self.one(x)
        y.mul_(2)
        return self.two(y)


def test_a_graph_that_writes_into_tensors_is_run_whole():
    module, inputs = InPlace(), {"x": torch.randn(2, 4)}
    graph = graph_of_module(module, inputs, weights_of=module)
    floats = FloatGraph(graph)
    assert floats.mutates
    pair = pair_of(graph)
    reruns = Reruns(floats, inputs, ALL)

    for key in pair.sites:
        assert same(reruns.run({key: pair}), Walk(pair, inputs, {key}).run())
    whole = dict.fromkeys(pair.sites, pair)
    assert same(reruns.run(whole), run(pair.quantized, inputs))
