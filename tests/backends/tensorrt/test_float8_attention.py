"""Attention in 8-bit floats: the pattern by which TensorRT knows the fused kernel, and what it computes."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from torch import nn

from qdx.backends.registry import get_backend
from qdx.backends.tensorrt.engine.produce import lint_file
from qdx.backends.tensorrt.lint import DeviceFacts
from qdx.exporter.graph.analysis.sites import sites
from qdx.exporter.graph.rewrites.open_attention import open_attention
from qdx.exporter.plan.resolve.resolution import FloatTypes
from qdx.exporter.plan.schema.scheme import Inputs, Weights
from qdx.exporter.transforms.insert import insert
from qdx.targets import load_target
from qdx.verification.measure.computed import quantizer_shapes
from qdx.verification.measure.lockstep_runs import compare_in_lockstep
from tests.support.lowering import lower
from tests.support.onnxruntime_quantized import FixedRanges, resolved
from tests.support.tracing import graph_of

BACKEND, PROFILE = get_backend("tensorrt"), load_target("tensorrt")
FLOAT8 = "float8_e4m3fn"
LOCKSTEP_DB = 45
X = {"x": torch.randn(2, 20, 64, generator=torch.Generator().manual_seed(0))}


class Attention(nn.Module):
    """Two heads of 32 channels, whose last five tokens are masked."""

    def __init__(self):
        super().__init__()
        self.to_q, self.to_k, self.to_v, self.to_out = (nn.Linear(64, 64) for _ in range(4))

    def forward(self, x):
        heads = [
            layer(x).view(2, 20, 2, 32).transpose(1, 2)
            for layer in (self.to_q, self.to_k, self.to_v)
        ]
        mask = (torch.arange(20) < 15)[None, None, None]
        mixed = nn.functional.scaled_dot_product_attention(*heads, attn_mask=mask)
        return self.to_out(mixed.transpose(1, 2).reshape(2, 20, 64))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[object, Path]:
    graph, _ = graph_of(Attention, X)

    def wanted(site):
        weights = Weights(dtype=FLOAT8) if site.op == "linear" else None
        return weights, Inputs(dtype=FLOAT8)

    plan = replace(
        resolved(graph, wanted),
        components=(SimpleNamespace(component="block", becomes="float16"),),
    )
    opened = open_attention(graph, plan.quantized_products(graph.where))
    placement = BACKEND.place(opened, sites(opened), plan, FixedRanges())
    quantized = insert(opened, sites(opened), placement)
    folder = tmp_path_factory.mktemp("attention")
    lower(quantized, FloatTypes("float16"), PROFILE, folder)
    return quantized, folder


@pytest.fixture(scope="module")
def model(made):
    return ir.load(made[1] / "model.onnx")


def chain(value, kinds):
    """Follows a value back through nodes of these kinds, the nearest first; the last one."""
    for kind in kinds:
        node = value.producer()
        assert node.op_type == kind
        value = node.inputs[0]
    return node


def products(model):
    """The products of queries with keys and of probabilities with values."""
    softmax = next(node for node in model.graph if node.op_type == "Softmax")
    behind = [n for n in model.graph if n.op_type == "MatMul" and not n.inputs[1].is_initializer()]
    activations = [n for n in behind if n.inputs[1].producer().op_type == "Cast"]
    scores, result = activations
    return scores, softmax, result


def test_the_products_have_the_pattern_of_the_fused_kernel(model):
    scores, softmax, result = products(model)
    round_trip = ("Cast", "DequantizeLinear", "QuantizeLinear")
    query, key = (chain(value, round_trip) for value in scores.inputs)
    probabilities, value = (chain(each, round_trip) for each in result.inputs)

    assert query.inputs[0].producer().op_type == "Mul"  # by the scale, before the quantizer
    assert key.inputs[0].producer().op_type == "Transpose"
    assert probabilities.inputs[0] is softmax.outputs[0]
    assert value.inputs[0].producer().op_type == "Transpose"
    for product in (scores, result):
        assert product.outputs[0].dtype == ir.DataType.FLOAT
        (user,) = {use.node for use in product.outputs[0].uses()}
        assert (user.op_type, user.outputs[0].dtype) == ("Cast", ir.DataType.FLOAT16)
    assert softmax.outputs[0].dtype == ir.DataType.FLOAT16


def test_the_scale_of_probabilities_stands_for_one(model):
    *_, result = products(model)
    quantizer = chain(result.inputs[0], ("Cast", "DequantizeLinear", "QuantizeLinear"))

    assert float(quantizer.inputs[1].const_value.numpy()) == float(np.float16(1 / 448))


def test_its_result_is_quantized_for_the_output_layer(model):
    kinds = [node.op_type for node in model.graph]
    *_, result = products(model)
    pending, seen = [result], []
    while pending and "QuantizeLinear" not in seen:
        (node,) = {use.node for use in pending.pop().outputs[0].uses()}
        seen.append(node.op_type)
        pending.append(node)

    assert seen == ["Cast", "Transpose", "Reshape", "QuantizeLinear"]
    assert (
        kinds.count("QuantizeLinear") == 6
    )  # one for q, k and v, four in attention, one behind it


def test_every_rule_is_kept(made):
    assert lint_file(made[1] / "model.onnx", DeviceFacts()) == ()
    onnx.checker.check_model(str(made[1] / "model.onnx"), full_check=True)


def test_it_computes_what_the_graph_computes(made):
    graph, folder = made
    artifact = BACKEND.open_lockstep(folder, {}, quantizer_shapes(graph), threads=1)
    arrays = {name: value.numpy() for name, value in X.items()}
    where, worst_db = compare_in_lockstep(graph, X, artifact, arrays, {"y": "y"}).worst

    assert worst_db >= LOCKSTEP_DB, where


def test_the_audit_sees_its_products(made):
    found = {key: one.precision for one in BACKEND.audit(made[1], {}) for key in one.sites}

    assert found == dict.fromkeys(["to_q", "to_k", "to_v", "qk", "pv", "to_out"], FLOAT8)


@pytest.mark.parametrize("port", ["query", "probabilities"])
def test_a_wrong_scale_is_found(made, tmp_path, port):
    graph, folder = made[0], tmp_path / "altered"
    shutil.copytree(made[1], folder)
    model = ir.load(folder / "model.onnx")
    scores, _, result = products(model)
    product = scores if port == "query" else result
    quantizer = chain(product.inputs[0], ("Cast", "DequantizeLinear", "QuantizeLinear"))
    doubled = ir.tensor(quantizer.inputs[1].const_value.numpy() * np.float16(2), name="doubled")
    value = ir.Value(name="doubled", const_value=doubled, shape=doubled.shape, type=ir.TensorType(ir.DataType.FLOAT16))  # fmt: skip
    model.graph.register_initializer(value)
    quantizer.replace_input_with(1, value)
    ir.save(model, folder / "model.onnx")

    artifact = BACKEND.open_lockstep(folder, {}, quantizer_shapes(graph), threads=1)
    arrays = {name: x.numpy() for name, x in X.items()}

    assert compare_in_lockstep(graph, X, artifact, arrays, {"y": "y"}).worst[1] < LOCKSTEP_DB
