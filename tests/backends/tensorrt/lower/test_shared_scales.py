"""One scale for 8-bit weights whose products are in float16: what it is, what shares it, and what it leaves alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn

from benchmarks.tensorrt_raw_sums import largest_sums
from qdx.backends.lockstep import quantizers
from qdx.exporter.formats.affine import quantize_weight
from qdx.exporter.formats.quantization import WeightQuantization
from qdx.exporter.graph.analysis.sites import sites
from qdx.exporter.plan.resolve.resolution import FloatTypes
from qdx.exporter.plan.schema.scheme import Inputs, Weights
from qdx.exporter.transforms.insert import insert
from qdx.targets import load_target
from tests.support.lowering import lower
from tests.support.onnxruntime_quantized import FixedRanges, resolved
from tests.support.tensorrt_linear import (
    FLOAT8,
    FLOAT8S,
    INT8S,
    Projections,
    by_channel,
    layers,
    lowered,
    ratios_of,
    scale_of,
)
from tests.support.tensorrt_lowered import BACKEND, Lowered
from tests.support.tracing import graph_of

PROFILE = load_target("tensorrt")
HALF_LIMIT = 65504


def quantized_weight(module, name):
    """The integers and the scales that a layer's weight has by channel."""
    weight = module.get_submodule(name).weight.detach()
    found = quantize_weight(weight, WeightQuantization("int8"))
    return found.values.numpy(), found.scale.numpy()


@pytest.fixture(scope="module", params=[INT8S, FLOAT8S], ids=["int8", "float8"])
def made(request, tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("lowered")
    return lowered(Projections, folder, torch.randn(1, 8, 160), request.param)


def test_weights_that_read_one_input_share_a_power_of_two(made):
    found = layers(made[0].model)
    shared = {name: scale_of(node) for name, node in found.items()}

    assert all(scale.shape == () for scale in shared.values())
    assert shared["to_q"] == shared["to_k"] == shared["to_v"] != shared["to_out"]
    assert len({found[name].inputs[1].producer().inputs[1].name for name in ["to_q", "to_k", "to_v"]}) == 1  # fmt: skip
    assert all(np.frexp(scale)[0] == 0.5 for scale in shared.values())
    # The least that is not below any scale: the largest channel of the group has more than half of it.
    largest = max(ratios_of(found[name]).max() for name in ("to_q", "to_k", "to_v"))
    assert 0.5 < largest <= 1
    assert ratios_of(found["to_q"]).max() < 0.2  # the weights of to_k are nine times as large


def test_stored_numbers_are_what_they_were_and_so_are_their_values(tmp_path):
    artifact, module = lowered(Projections, tmp_path, torch.randn(1, 8, 160))
    for name, node in layers(artifact.model).items():
        integers, scales = quantized_weight(module, name)
        stored = node.inputs[1].producer().inputs[0].const_value.numpy()

        assert (stored == integers.T).all()
        # As exact as scales in float16 were: the shared one moves their exponents only.
        assert (scale_of(node) * ratios_of(node) == scales.astype(np.float16)).all()


def test_it_computes_what_the_graph_computes(made):
    x = torch.randn(1, 8, 160, generator=torch.Generator().manual_seed(3))
    found, cut = made[0].lockstep({"x": x})

    assert len(cut) == len(quantizers(made[0].graph)) == 2
    assert found.worst[1] >= 45


def test_no_rule_is_broken_and_the_bias_comes_behind_the_ratios(made):
    found = layers(made[0].model)

    assert [one.rule for one in made[0].findings((8, 9))] == []
    (ratios,) = found["to_q"].outputs[0].uses()
    (bias,) = ratios.node.outputs[0].uses()
    assert bias.node.op_type == "Add"


def test_audit_and_tables_know_the_products_as_before(made):
    found = BACKEND.audit(made[0].folder, {})

    assert {key for one in found for key in one.sites} == {"to_q", "to_k", "to_v", "to_out"}
    assert {one.precision for one in found} <= {"int8", FLOAT8}
    assert {one.name for one in found} == {f"{name}/MatMul" for name in ("to_q", "to_k", "to_v", "to_out")}  # fmt: skip


def test_a_product_of_matrices_keeps_its_operator_and_adds_its_bias_behind(tmp_path):
    artifact, _ = lowered(Projections, tmp_path, torch.randn(32, 160))
    node = layers(artifact.model)["to_q"]

    assert (node.op_type, len(node.inputs)) == ("Gemm", 2)
    (ratios,) = node.outputs[0].uses()
    assert [use.node.op_type for use in ratios.node.outputs[0].uses()] == ["Add"]
    assert artifact.lockstep({"x": torch.randn(32, 160)})[0].worst[1] >= 45


@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
def test_types_that_hold_every_sum_keep_the_scales_of_channels(tmp_path, stored):
    profile = "tensorrt-ada" if stored == "bfloat16" else "tensorrt"
    graph, _ = graph_of(Projections, {"x": torch.randn(1, 8, 160)})
    plan = resolved(graph, lambda _: INT8S)
    plan = replace(plan, components=(SimpleNamespace(component="block", becomes=stored),))
    made = insert(graph, sites(graph), BACKEND.place(graph, sites(graph), plan, FixedRanges()))
    lower(made, FloatTypes(stored), load_target(profile), tmp_path)

    found = layers(Lowered(made, tmp_path).model)
    assert {scale_of(node).shape for node in found.values()} == {(160,)}


def test_a_product_that_stays_in_float32_keeps_the_scales_of_channels(tmp_path):
    class Single(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Linear(160, 160)

        def forward(self, x):
            return self.one(x)

    graph, _ = graph_of(Single, {"x": torch.randn(1, 8, 160)})
    plan = resolved(graph, lambda _: INT8S)
    plan = replace(plan, components=(SimpleNamespace(component="block", becomes="float16"),))
    made = insert(graph, sites(graph), BACKEND.place(graph, sites(graph), plan, FixedRanges()))
    made = replace(made, wide=frozenset({"one.weight"}))
    lower(made, FloatTypes("float16"), PROFILE, tmp_path)
    node = layers(Lowered(made, tmp_path).model)["one"]

    assert node.outputs[0].dtype == ir.DataType.FLOAT
    assert scale_of(node).shape == (160,)


def test_weights_with_one_scale_keep_it(tmp_path):
    schemes = Weights(dtype="int8", granularity="tensor"), Inputs(dtype="int8")
    found = layers(lowered(Projections, tmp_path, torch.randn(1, 8, 160), schemes)[0].model)

    assert {scale_of(node).shape for node in found.values()} == {()}
    assert scale_of(found["to_k"]) > 5 * scale_of(found["to_q"])
    assert [use.node.op_type for use in found["to_q"].outputs[0].uses()] == ["Add"]


def test_a_layer_that_reads_two_inputs_has_one_scale_with_all_that_read_them(tmp_path):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(160, 160), nn.Linear(160, 160)
            with torch.no_grad():
                self.two.weight *= 9

        def forward(self, x):
            return self.one(x) * self.one(torch.tanh(x)) + self.two(torch.tanh(x))

    x = torch.randn(1, 8, 160)
    artifact, _ = lowered(Twice, tmp_path, x)
    found = [one for one in artifact.model.graph if one.op_type == "MatMul"]
    weights = {one.inputs[1].producer().inputs[0].name for one in found}

    assert (len(found), weights) == (3, {"one.weight", "two.weight"})
    assert len({one.inputs[1].producer().inputs[1].name for one in found}) == 1
    assert artifact.lockstep({"x": x})[0].worst[1] >= 45


def test_a_weight_that_another_layer_reads_in_float_keeps_its_scales_there(tmp_path):
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Linear(160, 160, bias=False)

        def forward(self, x):
            return self.one(x) + self.one(torch.tanh(x))

    graph, _ = graph_of(Half, {"x": torch.randn(1, 8, 160)})
    first, second = (site.key for site in sites(graph))
    plan = resolved(graph, lambda site: INT8S if site.key == first else (INT8S[0], None))
    plan = replace(plan, components=(SimpleNamespace(component="block", becomes="float16"),))
    made = insert(graph, sites(graph), BACKEND.place(graph, sites(graph), plan, FixedRanges()))
    lower(made, FloatTypes("float16"), PROFILE, tmp_path)
    artifact = Lowered(made, tmp_path)
    found = [one for one in artifact.model.graph if one.op_type == "MatMul"]

    assert first != second
    assert sorted(len(scale_of(one).shape) for one in found) == [0, 1]
    assert artifact.lockstep({"x": torch.randn(1, 8, 160)})[0].worst[1] >= 45


def test_a_channel_of_zeros_does_not_count_and_a_small_one_keeps_its_value(tmp_path):
    class Uneven(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Linear(160, 160, bias=False)
            with torch.no_grad():
                self.one.weight[0] = 0
                self.one.weight[1] *= 1e-3
                self.one.weight[2] *= 1e-9

        def forward(self, x):
            return self.one(x)

    artifact, module = lowered(Uneven, tmp_path, torch.randn(1, 8, 160))
    node = layers(artifact.model)["one"]
    ratios, scales = ratios_of(node), quantized_weight(module, "one")[1]

    assert scales[0] == 1  # that of a channel of zeros, which would make all others small
    assert scale_of(node) < 1e-2
    assert ratios[0] == 1
    assert float(ratios[1]) * float(scale_of(node)) == pytest.approx(scales[1], rel=2**-11)
    assert ratios[2] == 0  # less than float16's least number of the others
    assert artifact.lockstep({"x": torch.randn(1, 8, 160)})[0].worst[1] >= 45


def test_all_zeros_have_a_scale(tmp_path):
    class Empty(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Linear(160, 160)
            nn.init.zeros_(self.one.weight)

        def forward(self, x):
            return self.one(x)

    artifact, _ = lowered(Empty, tmp_path, torch.randn(1, 8, 160))
    node = layers(artifact.model)["one"]

    assert scale_of(node) == 1
    assert (ratios_of(node) == 1).all()
    assert [one.rule for one in artifact.findings() if one.severity == "error"] == []


class Large(nn.Module):
    """All weights of one magnitude: inputs of their signs make the largest sum that there is."""

    def __init__(self):
        super().__init__()
        self.one = nn.Linear(4096, 160, bias=False)
        with torch.no_grad():
            self.one.weight.copy_(torch.where(self.one.weight > 0, 20.0, -20.0))
            self.one.weight[1:] *= 1e-3

    def forward(self, x):
        return self.one(x)


def test_the_largest_sum_that_inputs_can_make_stays_in_float16(tmp_path):
    """With 2**-2, the least that is not below 20 / 127, it would be 81920."""
    artifact, _ = lowered(Large, tmp_path, torch.randn(1, 8, 4096), ranges=FixedRanges(-1, 1))
    node = layers(artifact.model)["one"]
    weight = node.inputs[1].producer().inputs[0].const_value.numpy().astype(np.float64)
    step = float(node.inputs[0].producer().inputs[1].const_value.numpy())
    most = 128 * np.abs(weight).sum(axis=0).max() * step * float(scale_of(node))

    assert HALF_LIMIT / 2 < most <= HALF_LIMIT
    assert ratios_of(node).max() == pytest.approx(20 / 127 / scale_of(node), rel=2**-11)


def test_what_products_leave_in_float16_is_within_it(made, tmp_path):
    found = largest_sums(made[0].folder / "model.onnx")

    assert len(found) == 4
    assert all(one.raw > 10 * one.left for one in found)
    assert not any(one.beyond for one in found)


# Planted faults


def test_scales_of_channels_break_a_rule_and_leave_sums_beyond_float16(tmp_path):
    x = torch.randn(1, 8, 160)
    artifact = by_channel(lowered(Projections, tmp_path, x, FLOAT8S)[0])

    assert Counter(one.rule for one in artifact.findings((8, 9))) == {"raw-sum": 4}
    assert all(one.beyond for one in largest_sums(artifact.folder / "model.onnx"))
    assert (
        artifact.lockstep({"x": x})[0].worst[1] >= 45
    )  # nothing that this machine computes shows it


def test_a_ratio_that_is_wrong_is_found(tmp_path):
    x = torch.randn(1, 8, 160)
    artifact, _ = lowered(Projections, tmp_path, x)
    model = artifact.model
    (use,) = layers(model)["to_q"].outputs[0].uses()
    ratios = use.node.inputs[1]
    ratios.const_value = ir.tensor(ratios.const_value.numpy() * np.float16(1.1), name=ratios.name)
    ir.save(model, artifact.folder / "model.onnx")

    assert artifact.lockstep({"x": x})[0].worst[1] < 45
