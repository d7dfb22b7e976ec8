"""A model in sixteen bits, computed in float32."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from torch import nn

from benchmarks.widen import widen
from qdx.backends.registry import get_backend
from qdx.exporter.measure.metrics import sqnr_db
from qdx.exporter.plan.resolve.resolution import FloatTypes
from qdx.targets import load_target
from tests.support.tracing import graph_of

BACKEND, PROFILE = get_backend("tensorrt"), load_target("tensorrt")
EXACT_DB = 110


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.linear = nn.Conv2d(4, 16, 3, padding=1), nn.Linear(16, 16)

    def forward(self, x):
        return self.linear(nn.functional.silu(self.conv(x)).flatten(2).mT)


@pytest.fixture
def made(tmp_path):
    x = torch.randn(2, 4, 8, 8)
    graph, module = graph_of(Small, {"x": x})
    BACKEND.lower(graph, FloatTypes("float16"), PROFILE, tmp_path)
    return tmp_path, x, module.half().float()(x).detach()


def drawn(folder, x):
    return torch.from_numpy(BACKEND.open(folder, {}, threads=1)({"x": x.numpy()})["y"])


def test_its_numbers_are_those_of_the_rounded_weights(made):
    folder, x, expected = made
    assert sqnr_db(expected, drawn(folder, x)) < EXACT_DB

    widen(folder / "model.onnx", folder / "model.onnx")

    assert sqnr_db(expected, drawn(folder, x)) >= EXACT_DB


def test_a_planted_fault_stays(made):
    folder, x, expected = made
    proto = onnx.load(folder / "model.onnx")
    weight = next(one for one in proto.graph.initializer if one.name == "linear.bias")
    wrong = onnx.numpy_helper.to_array(weight) + np.float16(0.01)
    weight.CopyFrom(onnx.numpy_helper.from_array(wrong, weight.name))
    onnx.save(proto, folder / "model.onnx")

    widen(folder / "model.onnx", folder / "model.onnx")

    assert sqnr_db(expected, drawn(folder, x)) < 60


def test_nothing_in_sixteen_bits_is_left(made):
    folder, *_ = made
    widen(folder / "model.onnx", folder / "model.onnx")
    proto = onnx.load(folder / "model.onnx")

    assert {one.data_type for one in proto.graph.initializer} <= {
        TensorProto.FLOAT,
        TensorProto.INT64,
    }
    assert all(
        a.i != TensorProto.FLOAT16 for n in proto.graph.node for a in n.attribute if a.name == "to"
    )
