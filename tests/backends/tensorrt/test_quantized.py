"""Quantized graphs for TensorRT: the rules hold, ONNX reads them, and ONNX Runtime computes what the graph computes."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from torch import nn

from qdx.backends.lockstep import quantizers
from qdx.backends.tensorrt.lint import Severity
from qdx.exporter.graph.analysis.sites import sites
from qdx.exporter.measure.metrics import sqnr_db
from qdx.exporter.plan.resolve.resolution import FloatTypes
from qdx.exporter.plan.schema.scheme import Inputs, Weights
from qdx.exporter.transforms.insert import insert
from qdx.targets import load_target
from tests.support.lowering import lower
from tests.support.onnxruntime_quantized import FixedRanges, resolved
from tests.support.tensorrt_lowered import BACKEND, Lowered
from tests.support.tracing import block_inputs, graph_of

PROFILE = load_target("tensorrt")
LOCKSTEP_DB, WHOLE_DB = 45, 60
FLOAT8 = "float8_e4m3fn"
W8, A8 = Weights(dtype="int8"), Inputs(dtype="int8")
F8, AF8 = Weights(dtype=FLOAT8), Inputs(dtype=FLOAT8)
W4 = Weights(dtype="int4", granularity="block", block=16)
SCHEMES = {"int8": (W8, A8), "float8": (F8, AF8), "int4": (W4, None), "int8 weights": (W8, None)}
MADE = (*((scheme, "float16") for scheme in SCHEMES), ("int8", "float32"), ("int4", "float32"))


def errors(made):
    return {one.rule for one in made.findings() if one.severity is Severity.ERROR}


def wanted(scheme):
    """Four bits in the linear layers whose inputs are whole blocks; the others everywhere."""
    weights, inputs = SCHEMES[scheme]

    def of(site):
        if site.op not in {"conv2d", "linear"}:
            return None, None
        if weights is W4 and (site.op != "linear" or site.weight_shape[1] % 16):
            return None, None
        return weights, inputs

    return of


def lowered(graph, folder, scheme, stored="float16", change=lambda placement: placement):
    """A scheme is a name, or a function from a site to its weights and inputs."""
    plan = replace(
        resolved(graph, scheme if callable(scheme) else wanted(scheme)),
        components=(SimpleNamespace(component="block", becomes=stored),),
    )
    placement = BACKEND.place(graph, sites(graph), plan, FixedRanges())
    made = insert(graph, sites(graph), change(placement))
    lower(made, FloatTypes(stored), PROFILE, folder)
    return Lowered(made, folder)


@pytest.fixture(scope="module", params=MADE, ids="-".join)
def artifact(request, block, tmp_path_factory):
    scheme, stored = request.param
    return lowered(block[0], tmp_path_factory.mktemp("lowered"), scheme, stored)


def test_no_rule_is_broken(artifact):
    assert errors(artifact) == set()


def test_the_checker_of_onnx_reads_it(artifact):
    onnx.checker.check_model(str(artifact.folder / "model.onnx"), full_check=True)


def test_it_computes_what_the_graph_computes(artifact):
    if quantizers(artifact.graph):
        where, worst_db = artifact.lockstep(block_inputs())[0].worst
        assert worst_db >= LOCKSTEP_DB, where
    else:
        assert artifact.whole_db(block_inputs()) >= WHOLE_DB


def test_four_bit_blocks_lie_along_the_dimension_that_is_reduced(block, tmp_path):
    model = lowered(block[0], tmp_path, "int4").model
    weights = {
        node.inputs[0].name: node
        for node in model.graph
        if node.op_type == "DequantizeLinear" and node.inputs[0].dtype == ir.DataType.INT4
    }

    assert len(weights) == 6
    for node in weights.values():
        integers, scale, zero = node.inputs
        axis = node.attributes["axis"].as_int() % 2
        (user,) = {use.node.op_type for use in node.outputs[0].uses()}
        gemm = user == "Gemm"
        reduced = 1 if gemm else 0  # [out, in] of a Gemm that transposes, [in, out] of a MatMul
        assert axis == reduced
        assert node.attributes["block_size"].as_int() == 16
        assert scale.shape[axis] * 16 == integers.shape[axis]
        assert (scale.dtype, zero.dtype) == (ir.DataType.FLOAT16, ir.DataType.INT4)
        assert not zero.const_value.numpy().astype(np.int32).any()


def test_q_k_and_v_of_one_input_share_its_quantizer(tmp_path):
    class Projections(nn.Module):
        def __init__(self):
            super().__init__()
            self.to_q, self.to_k, self.to_v = (nn.Linear(32, 32) for _ in range(3))

        def forward(self, x):
            return self.to_q(x) + self.to_k(x) * self.to_v(x)

    graph, _ = graph_of(Projections, {"x": torch.randn(1, 32, 32)})
    model = lowered(graph, tmp_path, "int8").model

    assert [node.op_type for node in model.graph].count("QuantizeLinear") == 1


class Shrinking(nn.Module):
    """A residual addition in front of a convolution with a stride."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.end = (nn.Conv2d(32, 32, 3, padding=1) for _ in range(3))

    def forward(self, x):
        return self.end((x + self.two(torch.relu(self.one(x)))) / 1.0)


@pytest.fixture(scope="module")
def shrinking():
    return graph_of(Shrinking, {"x": torch.randn(1, 32, 8, 8)})[0]


def warnings(made):
    return [one.rule for one in made.findings()]


def test_a_residual_branch_in_8_bits_lets_its_sum_be_made_in_8_bits(shrinking, tmp_path):
    def wants(site):
        return (W8 if site.weight else None), (A8 if site.op in {"conv2d", "add"} else None)

    x = {"x": torch.randn(1, 32, 8, 8, generator=torch.Generator().manual_seed(1))}
    made = lowered(shrinking, tmp_path, wants)

    addition = first(made.model, "Add")
    assert [value.producer().op_type for value in addition.inputs] == ["DequantizeLinear", "Conv"]
    assert warnings(made) == []
    assert made.lockstep(x)[0].worst[1] >= LOCKSTEP_DB
    found = {key: one.precision for one in BACKEND.audit(tmp_path, {}) for key in one.sites}
    assert found == dict.fromkeys(["one", "two", "add", "end"], "int8")


def test_a_float_residual_branch_in_front_of_a_quantizer_is_noticed(shrinking, tmp_path):
    assert warnings(lowered(shrinking, tmp_path, "int8")) == ["residual"]


def test_branches_that_are_joined_have_one_quantizer_behind(tmp_path):
    """TensorRT moves it in front of the branches, so that all have its scale."""

    class Joined(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.end = (nn.Conv2d(32, 32, 1) for _ in range(3))

        def forward(self, x):
            return self.end(torch.cat([self.one(x), self.two(x)], 2))

    graph, _ = graph_of(Joined, {"x": torch.randn(1, 32, 4, 4)})
    made = lowered(graph, tmp_path, "int8")

    (joined,) = (node for node in made.model.graph if node.op_type == "Concat")
    assert [use.node.op_type for use in joined.outputs[0].uses()] == ["QuantizeLinear"]
    assert warnings(made) == []


def test_scales_are_stored_as_the_artifact_computes(block, tmp_path):
    made = lowered(block[0], tmp_path, "int8")
    scales = {
        float(node.inputs[1].const_value.numpy())
        for node in made.model.graph
        if node.op_type == "QuantizeLinear"
    }

    assert scales
    assert all(float(np.float16(scale)) == scale for scale in scales)


# Planted faults


def altered(artifact, change):
    """The artifact with its model changed on disk."""
    model = artifact.model
    change(model)
    ir.save(model, artifact.folder / "model.onnx")
    return artifact


def first(model, op_type, stored=None):
    return next(
        node
        for node in model.graph
        if node.op_type == op_type and (stored is None or node.inputs[0].dtype == stored)
    )


def set_constant(value, array):
    value.const_value = ir.Tensor(array, dtype=value.dtype, name=value.name)


@pytest.mark.parametrize("scheme", ["int8", "float8"])
def test_a_doubled_scale_is_found(block, tmp_path, scheme):
    def double(model):
        scale = first(model, "QuantizeLinear").inputs[1]
        set_constant(scale, scale.const_value.numpy() * 2)

    made = altered(lowered(block[0], tmp_path, scheme), double)

    assert made.lockstep(block_inputs())[0].worst[1] < LOCKSTEP_DB


def test_a_doubled_scale_of_a_weight_is_found(block, tmp_path):
    def double(model):
        scale = first(model, "DequantizeLinear", ir.DataType.INT4).inputs[1]
        set_constant(scale, scale.const_value.numpy() * 2)

    made = altered(lowered(block[0], tmp_path, "int4"), double)

    assert errors(made) == set()
    assert made.whole_db(block_inputs()) < WHOLE_DB


def test_a_zero_point_that_is_not_zero_breaks_a_rule(block, tmp_path):
    def shift(model):
        zero = first(model, "QuantizeLinear").inputs[2]
        set_constant(zero, np.full_like(zero.const_value.numpy(), 1))

    assert "zero-point-not-zero" in errors(altered(lowered(block[0], tmp_path, "int8"), shift))


def test_a_zeroed_weight_is_found(block, tmp_path):
    def empty(model):
        integers = first(model, "DequantizeLinear", ir.DataType.INT8).inputs[0]
        set_constant(integers, np.zeros_like(integers.const_value.numpy()))

    made = altered(lowered(block[0], tmp_path, "int8 weights"), empty)

    assert made.whole_db(block_inputs()) < WHOLE_DB


# Without quantizers


def test_float16_is_that_of_rounded_weights(tmp_path):
    class Small(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.linear = nn.Conv2d(4, 16, 3, padding=1), nn.Linear(16, 16)

        def forward(self, x):
            return self.linear(torch.nn.functional.silu(self.conv(x)).flatten(2).mT)

    x = {"x": torch.randn(2, 4, 8, 8)}
    graph, module = graph_of(Small, x)
    lower(graph, FloatTypes("float16"), PROFILE, tmp_path)
    rounded = module.half().float()

    found = BACKEND.open(tmp_path, {}, threads=1)({"x": x["x"].numpy()})["y"]

    assert sqnr_db(rounded(x["x"]).detach(), torch.from_numpy(found)) >= WHOLE_DB
    assert errors(Lowered(graph, tmp_path)) == set()


def test_float8_codes_use_all_of_their_range(block, tmp_path):
    """The scale is amax / 448, so that the largest activation becomes the largest number."""
    model = lowered(block[0], tmp_path, "float8", "float32").model
    scale = float(first(model, "QuantizeLinear").inputs[1].const_value.numpy())

    assert scale == pytest.approx(4.0 / float(ml_dtypes.finfo(ml_dtypes.float8_e4m3fn).max))
