"""Linear layers whose inputs have a scale for each token: no calibration, the 8-bit products of one scale."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn

from benchmarks.tensorrt_raw_sums import largest_sums
from qdx.exporter.measure.metrics import sqnr_db
from tests.support.tensorrt_linear import TOKENS, Projections, lowered
from tests.support.tensorrt_lowered import BACKEND

LOCKSTEP_DB = 45


class Single(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Linear(160, 160)

    def forward(self, x):
        return self.one(x)


def token_layers(folder, stored="float16", make=Projections):
    return lowered(make, folder, torch.randn(1, 8, 160), TOKENS, stored)


@pytest.fixture(scope="module", params=["float16", "float32"])
def made(request, tmp_path_factory):
    return token_layers(tmp_path_factory.mktemp("lowered"), request.param)


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
    artifact, module = token_layers(tmp_path, make=Single)
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
    artifact, _ = token_layers(tmp_path)

    assert not any(one.beyond for one in largest_sums(artifact.folder / "model.onnx"))


# Planted faults


def test_without_the_floor_a_token_of_zeros_is_no_number(tmp_path):
    artifact, _ = token_layers(tmp_path)
    model = artifact.model
    floors = [node for node in model.graph if node.op_type == "Max"]
    assert len(floors) == 2
    for node in floors:
        node.outputs[0].replace_all_uses_with(node.inputs[0])
        model.graph.remove(node, safe=True)
    ir.save(model, artifact.folder / "model.onnx")

    assert not artifact.lockstep({"x": uneven()})[0].worst[1] >= LOCKSTEP_DB


def test_a_result_that_is_not_multiplied_again_is_found(tmp_path):
    artifact, _ = token_layers(tmp_path)
    model = artifact.model
    product = next(node for node in model.graph if node.name == "to_q/MatMul")
    (ratios,) = product.outputs[0].uses()
    (factor,) = ratios.node.outputs[0].uses()
    assert factor.node.op_type == "Mul"
    factor.node.outputs[0].replace_all_uses_with(ratios.node.outputs[0])
    model.graph.remove(factor.node, safe=True)
    ir.save(model, artifact.folder / "model.onnx")

    assert artifact.lockstep({"x": uneven()})[0].worst[1] < LOCKSTEP_DB
