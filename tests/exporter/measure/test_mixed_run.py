"""A float graph with some sites as the quantized graph computes them."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from qdx.exporter.graph.analysis.sites import sites as find_sites
from qdx.exporter.measure.mixed_run import Pair
from qdx.exporter.transforms.insert_quantizers import InsertQuantizers
from qdx.exporter.transforms.placement import ActivationQuantization, SitePlacement
from qdx.exporter.transforms.recipe import Recipe, quantized_graph
from tests.support.traced_modules import graph_of_module

INPUT = ActivationQuantization("int8", 0.05, 3)


@pytest.fixture
def uncollected():
    """Without what finds cycles, so that only what nothing holds is freed."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_values_are_freed_with_the_run_that_had_them(uncollected):
    layers = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8))
    graph = graph_of_module(layers, {"input": torch.randn(2, 8)}, weights_of=layers)
    keys = [site.key for site in find_sites(graph)]
    placed = tuple(SitePlacement(key, inputs={0: INPUT}) for key in keys)
    recipe = Recipe(graph.where, (InsertQuantizers(placed),))
    pair = Pair(graph, quantized_graph(graph, recipe), recipe)
    (name,) = graph.placeholders.values()
    values = {name: torch.randn(2, 8)}
    held = weakref.ref(values[name])

    result = pair.site_result(keys[0], values)
    assert result.shape == (2, 8)
    del values
    assert held() is None
