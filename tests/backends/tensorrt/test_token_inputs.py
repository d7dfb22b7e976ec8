"""Linear layers whose inputs have a scale for each token: no calibration, the 8-bit products of one scale."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn

from benchmarks.tensorrt_raw_sums import largest_sums
from qdx.exporter.graph.analysis.sites import sites
from qdx.exporter.measure.metrics import sqnr_db
from qdx.exporter.plan.resolve.resolution import FloatTypes
from qdx.exporter.plan.schema.scheme import Inputs, Weights
from qdx.exporter.transforms.insert import insert
from qdx.targets import load_target
from tests.support.lowering import lower
from tests.support.onnxruntime_quantized import resolved
from tests.support.tensorrt_lowered import BACKEND, Lowered
from tests.support.tracing import graph_of

PROFILE = load_target("tensorrt")
SCHEMES = Weights(dtype="int8"), Inputs(dtype="int8", granularity="token", mode="dynamic")
LOCKSTEP_DB = 45


class Projections(nn.Module):
    def __init__(self):
        super().__init__()
        self.to_q, self.to_k, self.to_v = (nn.Linear(160, 160) for _ in range(3))
        self.to_out = nn.Linear(160, 160)

    def forward(self, x):
        return self.to_out(torch.tanh(self.to_q(x) + self.to_k(x) * self.to_v(x)))


class Single(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Linear(160, 160)

    def forward(self, x):
        return self.one(x)


def lowered(folder, stored="float16", make=Projections):
    graph, module = graph_of(make, {"x": torch.randn(1, 8, 160)})
    plan = resolved(graph, lambda site: SCHEMES if site.op == "linear" else (None, None))
    plan = replace(plan, components=(SimpleNamespace(component="block", becomes=stored),))
    made = insert(graph, sites(graph), BACKEND.place(graph, sites(graph), plan, None))
    lower(made, FloatTypes(stored), PROFILE, folder)
    return Lowered(made, folder), module


@pytest.fixture(scope="module", params=["float16", "float32"])
def made(request, tmp_path_factory):
    return lowered(tmp_path_factory.mktemp("lowered"), request.param)


def uneven(low=-3, high=4):
    """Tokens of very different magnitudes, and one of zeros."""
    x = torch.randn(1, 8, 160, generator=torch.Generator().manual_seed(1))
    scales = torch.logspace(low, high, 8)
    scales[3] = 0
    return x * scales[:, None]


def test_it_computes_what_the_graph_computes_on_tokens_of_any_magnitude(made):
    found, cut = made[0].lockstep({"x": uneven()})

    assert len(cut) == 2
    assert found.worst[1] >= LOCKSTEP_DB


def test_a_token_of_zeros_and_one_next_to_the_end_of_float16_are_right(made):
    x = torch.zeros(1, 8, 160)
    x[0, 1, 5], x[0, 2, 6], x[0, 3, 7] = 65000.0, 2.0**-24, -1e-3
    found = BACKEND.open(made[0].folder, {}, threads=1)({"x": x.numpy()})["y"]

    assert np.isfinite(found).all()
    assert sqnr_db(made[0].answer({"x": x}), torch.from_numpy(found)) >= 40


def test_tokens_are_quantized_each_by_its_own_magnitude(tmp_path):
    """A constant scale for all would round all but the largest tokens to zero."""
    x = uneven(-2, 4)
    artifact, module = lowered(tmp_path, make=Single)
    with torch.no_grad():
        wanted = module(x)
    found = torch.from_numpy(BACKEND.open(artifact.folder, {}, threads=1)({"x": x.numpy()})["y"])

    for token in range(8):
        assert sqnr_db(wanted[:, token], found[:, token]) >= 35, token


def test_the_quantizer_between_has_one_constant_scale(made):
    model = made[0].model
    quantizers = [node for node in model.graph if node.op_type == "QuantizeLinear"]

    assert len(quantizers) == 2  # query, key and value share theirs
    for node in quantizers:
        scale = node.inputs[1].const_value.numpy()
        assert scale.shape == ()
        assert float(scale) == pytest.approx(1 / 127, rel=2**-11)
        assert node.inputs[0].producer().op_type == "Div"


def test_no_rule_is_broken_and_all_products_ask_for_8_bits(made):
    assert [one.rule for one in made[0].findings()] == []
    found = {key: one.precision for one in BACKEND.audit(made[0].folder, {}) for key in one.sites}
    assert found == dict.fromkeys(["to_q", "to_k", "to_v", "to_out"], "int8")


def test_sums_stay_in_float16(tmp_path):
    artifact, _ = lowered(tmp_path)

    assert not any(one.beyond for one in largest_sums(artifact.folder / "model.onnx"))


# Planted faults


def test_without_the_floor_a_token_of_zeros_is_no_number(tmp_path):
    artifact, _ = lowered(tmp_path)
    model = artifact.model
    floors = [node for node in model.graph if node.op_type == "Max"]
    assert len(floors) == 2
    for node in floors:
        node.outputs[0].replace_all_uses_with(node.inputs[0])
        model.graph.remove(node, safe=True)
    ir.save(model, artifact.folder / "model.onnx")

    assert not artifact.lockstep({"x": uneven()})[0].worst[1] >= LOCKSTEP_DB


def test_a_result_that_is_not_multiplied_again_is_found(tmp_path):
    artifact, _ = lowered(tmp_path)
    model = artifact.model
    product = next(node for node in model.graph if node.name == "to_q/MatMul")
    (ratios,) = product.outputs[0].uses()
    (factor,) = ratios.node.outputs[0].uses()
    assert factor.node.op_type == "Mul"
    factor.node.outputs[0].replace_all_uses_with(ratios.node.outputs[0])
    model.graph.remove(factor.node, safe=True)
    ir.save(model, artifact.folder / "model.onnx")

    assert artifact.lockstep({"x": uneven()})[0].worst[1] < LOCKSTEP_DB
