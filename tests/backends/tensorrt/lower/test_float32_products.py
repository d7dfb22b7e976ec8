"""Products in float32 are convolutions for devices that have no such products: the same numbers, and an engine."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import nn

from qdx.backends.layout import graph_in_layout
from qdx.backends.registry import find_backend
from qdx.backends.tensorrt.engine.produce_ahead import BUILDER, produce_ahead
from qdx.backends.tensorrt.lower import float32_products
from qdx.backends.tensorrt.recipe import BuildRecipe
from qdx.exporter.errors import TargetRefusal
from qdx.exporter.plan.resolve.resolution import FloatTypes
from qdx.targets import load_target
from tests.support.traced_modules import graph_of_module


class Layers(nn.Module):
    """With a bias and without, on tensors of three dimensions and of two."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(32, 64), nn.Linear(64, 32, bias=False)

    def forward(self, sample):
        return self.two(torch.relu(self.one(sample)))


def lowered(folder, size, target="rtx-turing"):
    """In float32 throughout, as parts of a component in float16 may be."""
    torch.manual_seed(0)
    folder.mkdir()
    profile = load_target(target)
    graph = graph_of_module(Layers(), {"sample": torch.ones(size)})
    face = graph_in_layout(graph, profile.layout)
    find_backend(profile.runtime).lower(face, FloatTypes("float32"), profile, folder)
    return folder


def operators(folder):
    return [node.op_type for node in ir.load(folder / "model.onnx").graph]


def run(folder, size):
    session = onnxruntime.InferenceSession(
        folder / "model.onnx", providers=["CPUExecutionProvider"]
    )
    data = np.random.default_rng(0).standard_normal(size).astype(np.float32)
    return session.run(None, {session.get_inputs()[0].name: data})[0]


@pytest.mark.parametrize("size", [(2, 8, 32), (8, 32)])
def test_the_numbers_are_those_of_the_products(tmp_path, size):
    products, convolutions = (
        lowered(tmp_path / one, size, one) for one in ("rtx-ada", "rtx-turing")
    )

    assert "Conv" not in operators(products)
    assert operators(convolutions).count("Conv") == 2
    assert not {"MatMul", "Gemm"} & set(operators(convolutions))
    found, expected = run(convolutions, size), run(products, size)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [(2, 8, 32), (8, 32)])
def test_they_build_where_products_are_refused(tmp_path, size):
    pytest.importorskip("tensorrt_rtx")
    folder = lowered(tmp_path / "convolutions", size)
    record = produce_ahead(folder).record
    assert record.compute_capabilities == ("7.5",)

    other = lowered(tmp_path / "products", size, "rtx-ada")
    recipe = BuildRecipe(flavour="tensorrt-rtx", versions=">=1.7,<2", compute_capabilities=("7.5",))
    (other / "build.json").write_bytes(recipe.to_json())
    with pytest.raises(TargetRefusal, match="FP32 GEMM is not supported"):
        produce_ahead(other)
    BUILDER.close()


def test_the_nodes_keep_the_names_by_which_sites_are_found(tmp_path):
    models = [ir.load(lowered(tmp_path / one, (2, 8, 32), one) / "model.onnx") for one in ("rtx-ada", "rtx-turing")]  # fmt: skip
    products = {node.name for node in models[0].graph if node.op_type in {"MatMul", "Gemm"}}

    assert products == {node.name for node in models[1].graph if node.op_type == "Conv"}
    assert models[0].metadata_props["qdx.sites"] == models[1].metadata_props["qdx.sites"]


def test_products_of_two_activations_stay():
    values = [ir.Value(name=n, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([2, 8, 8])) for n in "abc"]  # fmt: skip
    node = ir.node("MatMul", values[:2], outputs=values[2:], name="product")
    graph = ir.Graph(values[:2], values[2:], nodes=[node], opset_imports={"": 21}, name="g")
    float32_products.products_to_convolutions(ir.Model(graph, ir_version=10))

    assert [node.op_type for node in graph] == ["MatMul"]
