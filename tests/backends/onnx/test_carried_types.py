"""Operators on types without a kernel: what they become, and that it computes the same."""

from __future__ import annotations

import onnx_ir as ir
import pytest
import torch
from torch import nn

from qdx.backends.onnx.carried_types import carry_types
from tests.support.opened import opened
from tests.support.traced_modules import graph_of_module

CHOICE = """
<ir_version: 10, opset_import: ["": 21]>
g (bool[4] condition, bool[4] a, bool[4] b, float[4] x) => (bool[4] y, float[4] z)
{
    y = Where(condition, a, b)
    z = Where(y, x, x)
}
"""


def test_a_choice_between_booleans_is_carried_by_integers():
    model = ir.from_onnx_text(CHOICE)

    carry_types(model)

    kinds = [(node.op_type, *(value.dtype for value in node.outputs)) for node in model.graph]
    assert kinds == [
        ("Cast", ir.DataType.INT32),
        ("Cast", ir.DataType.INT32),
        ("Where", ir.DataType.INT32),
        ("Cast", ir.DataType.BOOL),
        ("Where", ir.DataType.FLOAT),
    ]
    assert model.graph.outputs[0] is model.graph[3].outputs[0]


class Masks(nn.Module):
    """Whole numbers and booleans where models have floats."""

    def forward(self, x, n):
        places = torch.arange(8)[None]
        mask = torch.ones(1, 8, dtype=torch.bool).masked_fill(places >= n, value=False)
        both = torch.where(mask, x > 0, places > n)
        triangle = torch.tril((x * 10).to(torch.int8).reshape(2, 4))
        large = nn.functional.interpolate(x[None].double(), scale_factor=2.0)
        return {
            "chosen": torch.where(both, x, 0.0),
            "sorted": torch.cat([mask, both], -1).sort(-1)[0],
            "triangle": triangle.float(),
            "large": large.float(),
        }


@pytest.mark.parametrize("target", ["onnxruntime", "tensorrt"])
def test_types_without_a_kernel_are_computed(target, tmp_path):
    inputs = {"x": torch.linspace(-3, 3, 8)[None], "n": torch.tensor(5)}

    runner = opened(graph_of_module(Masks(), inputs), target, tmp_path)

    given = {s.name: inputs[s.name].reshape(s.shape).numpy() for s in runner.inputs}
    results = runner({s.name: given[s.name].astype(s.dtype) for s in runner.inputs})
    for name, expected in Masks()(**inputs).items():
        found = torch.from_numpy(results[name])
        assert torch.allclose(found.float(), expected.float(), atol=1e-6), name
