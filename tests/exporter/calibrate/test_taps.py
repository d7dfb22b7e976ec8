"""Taps observe what sites take and give, each activation once."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import nn

from qdx.exporter.calibrate.guidance import Rows
from qdx.exporter.calibrate.streaming import StreamingStatistics
from qdx.exporter.calibrate.taps import Recorder, taps_of
from qdx.exporter.calibrate.weight_cache import WeightCache
from qdx.exporter.errors import InvalidModel
from qdx.exporter.graph.execute.interpreter import run
from qdx.exporter.graph.ir.site import Site
from qdx.exporter.graph.ir.weights import LazyWeight, LazyWeights
from tests.support.recording import Network, graph_of, nodes_of, traced

X = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(3))


def test_statistics_are_those_of_the_modules_activations():
    module, graph, sites = traced()
    recorder = Recorder(graph, sites)
    found = recorder.run({"x": X})
    with torch.no_grad():
        assert torch.equal(found["y"], module(X))
        hidden = torch.relu(module.one(X) + module.two(X))
        values = {
            ("layers.one", "input"): X,
            ("layers.two", "input"): X,
            ("layers.one", "output"): module.one(X),
            ("layers.out", "input"): hidden,
            ("layers.out", "output"): module.out(hidden),
        }
    statistics = recorder.finish()
    for (key, port), value in values.items():
        one = statistics[recorder.ports[key][port]]
        assert one.range("minmax") == (float(value.min()), float(value.max()))
        assert int(one.count) == value.numel()
    hidden_statistics = statistics[recorder.ports["layers.out"]["input"]]
    assert torch.equal(hidden_statistics.channel_absmax, hidden.abs().amax((0, 1)))
    assert statistics[recorder.ports["layers.out"]["output"]].channels == 0


def test_a_tensor_that_several_sites_share_is_observed_once(monkeypatch):
    _, graph, sites = traced()
    taken = []
    add = StreamingStatistics.add
    monkeypatch.setattr(
        StreamingStatistics, "add", lambda self, *a: taken.append(a[0].shape) or add(self, *a)
    )
    recorder = Recorder(graph, sites)
    recorder.run({"x": X})
    assert recorder.ports["layers.one"]["input"] == recorder.ports["layers.two"]["input"]
    assert len(taken) == len(recorder.finish()) == 5


def test_an_output_that_is_an_input_too_has_its_channels_observed():
    _, graph, sites = traced(nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 4), nn.Linear(4, 4)))
    taps = taps_of(graph, sites)
    assert taps.ports["layers.one"]["output"] == taps.ports["layers.two"]["input"]
    assert [tap.axis for tap in taps.taps] == [2, 2, 2, None]


def _product(module, operation):
    """The graph of a module, and a site for its one product."""
    graph = graph_of(module)
    (node,) = nodes_of(graph, operation)
    return graph, (Site("qk", "", node, "qk", "attn.qk", "", ports={"query": 0, "key": 1}),)


def test_channels_of_a_product_of_activations_are_not_observed():
    class Product(nn.Module):
        def forward(self, x):
            return x @ x.transpose(-1, -2)

    recorder = Recorder(*_product(Product(), "matmul"))
    recorder.run({"x": X})
    statistics = recorder.finish()
    for port in ("query", "key"):
        found = statistics[recorder.ports["qk"][port]]
        assert found.channels == 0
        assert found.range("minmax") == (float(X.min()), float(X.max()))


def test_attention_that_is_one_operation_is_not_observed():
    class Attention(nn.Module):
        def forward(self, x):
            return nn.functional.scaled_dot_product_attention(x, x, x)

    assert taps_of(*_product(Attention(), "scaled_dot")).ports == {"qk": {}}


def test_a_parameter_that_a_site_takes_is_observed():
    class Learned(nn.Module):
        def __init__(self):
            super().__init__()
            self.query = nn.Parameter(torch.linspace(-2, 3, 10).reshape(1, 2, 5))

        def forward(self, x):
            return self.query @ x

    module = Learned()
    recorder = Recorder(*_product(module, "matmul"))
    recorder.run({"x": X})
    found = recorder.finish()[recorder.ports["qk"]["query"]]
    assert found.range("minmax") == (-2.0, 3.0)


def test_values_that_are_not_finite_name_the_site_and_the_occasion():
    module = Network()
    with torch.no_grad():
        module.two.bias[1] = math.nan
    _, graph, sites = traced(module)
    recorder = Recorder(graph, sites)
    with pytest.raises(
        InvalidModel, match=r"output of `layers.two` holds NaN or infinity at timestep 9"
    ):
        recorder.run({"x": X}, occasion="timestep 9 of sample 1")


def test_one_part_of_the_batch_counts_alone():
    _, graph, sites = traced()
    recorder = Recorder(graph, sites)
    recorder.run({"x": X}, rows=Rows(part=1, parts=2, batch=2))
    recorder.run({"x": X * 100}, rows=Rows(parts=0))
    one = recorder.finish()[recorder.ports["layers.one"]["input"]]
    assert one.range("minmax") == (float(X[1].min()), float(X[1].max()))


def test_memory_does_not_grow_with_runs():
    _, graph, sites = traced()
    recorder = Recorder(graph, sites)
    recorder.run({"x": X})
    before = recorder.size_bytes
    for scale in range(1, 10):
        recorder.run({"x": X * scale})
    assert recorder.size_bytes == before


@pytest.mark.parametrize(("limit_bytes", "reads"), [(0, 3), (10**6, 1)])
def test_cached_weights_are_read_once_within_the_budget(limit_bytes, reads):
    _, graph, _ = traced()
    counts = dict.fromkeys(graph.weights, 0)

    def counted(name, weight):
        def load():
            counts[name] += 1
            return weight.load()

        return dataclasses.replace(weight, load=load)

    counting = LazyWeights({name: counted(name, weight) for name, weight in graph.weights.items()})
    cached = WeightCache(limit_bytes).attach(dataclasses.replace(graph, weights=counting))
    outputs = [run(cached, {"x": X})["y"] for _ in range(3)]
    assert set(counts.values()) == {reads}
    assert torch.equal(outputs[0], outputs[2])
    assert torch.equal(outputs[0], run(graph, {"x": X})["y"])


def test_no_small_weight_stays_behind_a_large_one_that_did_not_fit():
    _, graph, _ = traced()
    reads = []

    def weight(name, size):
        return LazyWeight(
            name, (size,), torch.float32, lambda: reads.append(name) or torch.zeros(size)
        )

    weights = {name: weight(name, size) for name, size in (("a", 4), ("large", 100), ("b", 4))}
    cached = (
        WeightCache(64).attach(dataclasses.replace(graph, weights=LazyWeights(weights))).weights
    )
    for _ in range(2):
        for name in weights:
            cached[name].read()
    assert reads == ["a", "large", "b", "large", "b"]


def test_a_residual_branch_is_observed_without_channels():
    class Residual(nn.Module):
        def forward(self, x):
            return torch.relu(x) + x

    graph = graph_of(Residual())
    (node,) = nodes_of(graph, "add")
    recorder = Recorder(graph, (Site("add", "", node, "add", "residual", "", ports={"skip": 0}),))
    recorder.run({"x": X})
    found = recorder.finish()[recorder.ports["add"]["skip"]]

    assert found.range("minmax") == (0.0, float(X.max()))
    assert found.channels == 0
