"""Weights in blocks of floats as lazy parts, and graphs that compute with them."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

from qdx.exporter.errors import InternalError, InvalidModel
from qdx.exporter.formats import weight_scales
from qdx.exporter.formats.block_floats import quantize_mxfp8, quantize_nvfp4
from qdx.exporter.formats.block_weights import block_weight, derived_blocks
from qdx.exporter.formats.quantization import WeightQuantization
from qdx.exporter.formats.registry import format_of
from qdx.exporter.graph.analysis.sites import sites
from qdx.exporter.graph.execute.interpreter import run
from qdx.exporter.graph.ir.weights import LazyWeight
from qdx.exporter.plan.schema.scheme import Weights
from qdx.exporter.transforms.insert import insert
from qdx.exporter.transforms.placement import ActivationQuantization, Placement, SitePlacement
from tests.support.tracing import graph_of

FORMATS = {"nvfp4": 16, "mxfp8": 32}
QUANTIZE = {"nvfp4": quantize_nvfp4, "mxfp8": quantize_mxfp8}


def quantization(name, axis=1):
    return WeightQuantization(name, "block", axis, FORMATS[name])


@pytest.mark.parametrize("name", FORMATS)
def test_parts_are_those_of_the_whole_weight_and_cost_one_reading(name):
    weight, reads = torch.randn(6, 64), []

    def load():
        reads.append(1)
        return weight

    parts = derived_blocks(LazyWeight("w", (6, 64), torch.float32, load), quantization(name))
    found = {suffix: part.load() for suffix, part in parts.items()}
    whole = QUANTIZE[name](weight)

    assert len(reads) == 1
    assert {suffix: (part.shape, part.dtype) for suffix, part in parts.items()} == {
        suffix: (tuple(part.shape), part.dtype) for suffix, part in found.items()
    }
    assert torch.equal(found[""].float(), whole.elements.float())
    assert torch.equal(
        format_of(name).values(weight, quantization(name), None), whole.dequantized()
    )
    if name == "nvfp4":
        assert torch.equal(found[".scale"], whole.scale)


@pytest.mark.parametrize("name", FORMATS)
def test_rows_are_quantized_a_few_at_a_time(name, monkeypatch):
    weight = torch.randn(9, 64)
    whole = block_weight(weight, quantization(name)).dequantized()
    monkeypatch.setattr(weight_scales, "_CHUNK_ELEMENTS", 128)

    assert torch.equal(block_weight(weight, quantization(name)).dequantized(), whole)


def test_a_weight_that_is_not_finite_is_named():
    lazy = LazyWeight("up.weight", (2, 32), torch.float32, lambda: torch.full((2, 32), math.nan))

    with pytest.raises(InvalidModel, match=r"`up\.weight`: holds NaN"):
        derived_blocks(lazy, quantization("mxfp8"))[""].load()


def test_blocks_lie_along_the_columns_of_a_matrix():
    for weight, axis in ((torch.zeros(32, 32), 0), (torch.zeros(32, 32, 1), 1)):
        with pytest.raises(InternalError, match="does not fit"):
            block_weight(weight, quantization("nvfp4", axis))


class Pair(nn.Module):
    """Two linear layers of the same input."""

    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Linear(64, 32), nn.Linear(64, 32, bias=False)

    def forward(self, x):
        return self.one(x) * self.other(x)


SCALE = 4.0 / (6 * 448)


@pytest.mark.parametrize("name", FORMATS)
def test_a_graph_computes_with_both_factors_in_blocks(name):
    x = torch.randn(2, 5, 64)
    graph, module = graph_of(Pair, {"x": x})
    activation = ActivationQuantization(name, SCALE if name == "nvfp4" else 1.0, 0)
    placement = Placement(
        graph.where,
        tuple(
            SitePlacement(site.key, {0: activation}, quantization(name)) for site in sites(graph)
        ),
    )
    made = insert(graph, sites(graph), placement)
    given = QUANTIZE[name](x, torch.tensor(SCALE)) if name == "nvfp4" else QUANTIZE[name](x)
    one, other = (
        QUANTIZE[name](layer.weight).dequantized() for layer in (module.one, module.other)
    )
    wanted = (given.dequantized() @ one.T + module.one.bias) * (given.dequantized() @ other.T)

    torch.testing.assert_close(run(made, {"x": x})["y"], wanted.detach())
    targets = [str(node.target) for node in made.program.graph.nodes]
    assert targets.count(f"qdx.quantize_{name}.default") == 1
    stored = json.loads(json.dumps([site.to_json() for site in placement.sites]))
    assert tuple(map(SitePlacement.from_json, stored)) == placement.sites


def test_the_plan_says_the_axis():
    scheme = Weights(dtype="nvfp4", granularity="block", block=16)

    assert WeightQuantization.of(scheme, 0) == quantization("nvfp4")
