"""Linear layers in files for TensorRT: their scales, and the same file with a scale for each channel."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from qdx.backends.tensorrt.lint.products import products
from qdx.backends.tensorrt.lint.subject import Subject
from qdx.exporter.graph.analysis.sites import sites
from qdx.exporter.plan.resolve.resolution import FloatTypes
from qdx.exporter.plan.schema.scheme import Inputs, Weights
from qdx.exporter.transforms.insert import insert
from qdx.targets import load_target
from tests.support.lowering import lower
from tests.support.onnxruntime_quantized import FixedRanges, resolved
from tests.support.tensorrt_lowered import BACKEND, Lowered
from tests.support.tracing import graph_of

FLOAT8 = "float8_e4m3fn"
INT8S = Weights(dtype="int8"), Inputs(dtype="int8")
FLOAT8S = Weights(dtype=FLOAT8), Inputs(dtype=FLOAT8)
TOKENS = Weights(dtype="int8"), Inputs(dtype="int8", granularity="token", mode="dynamic")
"""Schemes of linear layers."""


class Projections(nn.Module):
    """Query, key and value of one input, and a layer that reads another."""

    def __init__(self):
        super().__init__()
        self.to_q, self.to_k, self.to_v = (nn.Linear(160, 160) for _ in range(3))
        self.to_out = nn.Linear(160, 160, bias=False)
        with torch.no_grad():
            self.to_k.weight *= 9

    def forward(self, x):
        return self.to_out(torch.tanh(self.to_q(x) + self.to_k(x) * self.to_v(x)))


def lowered(make, folder, inputs, schemes=INT8S, stored="float16", ranges=None):
    """A module whose linear layers are quantized, and the module itself."""
    graph, module = graph_of(make, {"x": inputs})
    plan = resolved(graph, lambda site: schemes if site.op == "linear" else (None, None))
    plan = replace(plan, components=(SimpleNamespace(component="block", becomes=stored),))
    placement = BACKEND.place(graph, sites(graph), plan, ranges or FixedRanges())
    made = insert(graph, sites(graph), placement)
    lower(made, FloatTypes(stored), load_target("tensorrt"), folder)
    return Lowered(made, folder), module


def layers(model):
    """Linear layers of a model by their modules."""
    return {one.node.name.rpartition("/")[0]: one.node for one in products(Subject(model))}


def scale_of(node):
    return node.inputs[1].producer().inputs[1].const_value.numpy()


def ratios_of(node):
    (use,) = node.outputs[0].uses()
    assert use.node.op_type == "Mul"
    return use.node.inputs[1].const_value.numpy()


def by_channel(artifact):
    """The file as it was with scales of channels, which multiply behind the product all the same."""
    model = artifact.model
    for node in layers(model).values():
        dequantizer, ratios = node.inputs[1].producer(), ratios_of(node)
        scale = (ratios * scale_of(node)).astype(np.float16)
        zeros = np.zeros(scale.shape, dequantizer.inputs[0].dtype.numpy())
        for index, array in ((1, scale), (2, zeros)):
            name = f"{node.name}/{index}"
            value = ir.Value(
                name=name, shape=ir.Shape(array.shape), const_value=ir.tensor(array, name=name)
            )
            value.dtype = value.const_value.dtype
            model.graph.register_initializer(value)
            dequantizer.replace_input_with(index, value)
        dequantizer.attributes["axis"] = ir.AttrInt64("axis", 1)
        (use,) = node.outputs[0].uses()
        use.node.outputs[0].replace_all_uses_with(node.outputs[0], replace_graph_outputs=True)
        model.graph.remove(use.node, safe=True)
    ir.save(model, artifact.folder / "model.onnx")
    return artifact
