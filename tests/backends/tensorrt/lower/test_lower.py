"""Lowering for TensorRT: what it costs, and that a model which breaks a rule is refused."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import nn

from qdx.backends.registry import get_backend
from qdx.exporter.graph.analysis.sites import sites
from qdx.exporter.graph.ir.weights import LazyWeights
from qdx.exporter.plan.resolve.resolution import FloatTypes
from qdx.exporter.plan.schema.scheme import Inputs, Weights
from qdx.exporter.transforms.insert import insert
from qdx.targets import load_target
from tests.support.onnxruntime_quantized import FixedRanges, resolved
from tests.support.tracing import graph_of

BACKEND, PROFILE = get_backend("tensorrt"), load_target("tensorrt")
SCHEMES = {
    "int8": (Weights(dtype="int8"), Inputs(dtype="int8")),
    "int4": (Weights(dtype="int4", granularity="block", block=16), None),
    "float8": (Weights(dtype="float8_e4m3fn"), Inputs(dtype="float8_e4m3fn")),
    "float": (None, None),
}


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(32, 256), nn.Linear(256, 256)  # scales beside the model

    def forward(self, x):
        return self.two(nn.functional.silu(self.one(x)))


class Projections(nn.Module):
    """Query, key and value, whose scale is known once all three are read."""

    def __init__(self):
        super().__init__()
        self.to_q, self.to_k, self.to_v = (nn.Linear(256, 256) for _ in range(3))

    def forward(self, x):
        return self.to_q(x) + self.to_k(x) * self.to_v(x)


def counted(graph, reads):
    """The graph whose weights count how often they are read."""

    def load(weight):
        reads[weight.name] += 1
        return weight.load()

    weights = {
        name: replace(weight, load=lambda weight=weight: load(weight))
        for name, weight in graph.weights.items()
    }
    return replace(graph, weights=LazyWeights(weights, aliases=graph.weights.aliases))


@pytest.mark.parametrize("make", [Small, Projections])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_weight_is_read_once(tmp_path, scheme, make):
    """Quantizing a weight is what lowering costs; the scales that are checked are those that were written."""
    reads = Counter()
    graph = counted(
        graph_of(make, {"x": torch.randn(2, 8, 32 if make is Small else 256)})[0], reads
    )
    found = sites(graph)
    plan = resolved(graph, lambda _: SCHEMES[scheme])
    made = insert(graph, found, BACKEND.place(graph, found, plan, FixedRanges()))
    reads.clear()
    BACKEND.lower(made, FloatTypes("float16"), PROFILE, tmp_path)

    assert reads == dict.fromkeys(graph.weights, 1)
