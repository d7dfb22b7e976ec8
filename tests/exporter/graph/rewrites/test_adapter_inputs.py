"""Layers that take adapters compute as they did with zeros, and as merged weights would with matrices; plans do not see them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from qdx.exporter.graph.analysis.sites import sites
from qdx.exporter.graph.execute.interpreter import Executor
from qdx.exporter.graph.ir.editing import ProgramEditor
from qdx.exporter.graph.ir.operators import dequantize_tensor, quantize_tensor
from qdx.exporter.graph.rewrites.adapter_inputs import with_adapter_inputs
from tests.support.traced_modules import graph_of_module

RANK = 3
QUANTIZE = quantize_tensor._opoverload
DEQUANTIZE = dequantize_tensor._opoverload


class Block(nn.Module):
    """A linear layer that is called twice, a convolution of one pixel and two others, and a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Conv2d(4, 6, 1)
        self.wide = nn.Conv2d(6, 6, 3, padding=1)
        self.down = nn.Conv2d(6, 6, 1, stride=2)
        self.twice = nn.Linear(6, 6)
        self.out = nn.Linear(6, 5, bias=False)

    def forward(self, x):
        y = self.down(self.wide(self.proj(x))).flatten(2).transpose(1, 2)
        y = y + self.twice(torch.tanh(self.twice(y)))
        return {"y": self.out(y)}


@pytest.fixture(scope="module", name="block")
def _block():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Block().requires_grad_(False).eval()


@pytest.fixture(scope="module", name="graph")
def _graph(block):
    return graph_of_module(block, {"x": torch.zeros(2, 4, 4, 4)}, weights_of=block)


def given(graph, layers, seed: int | None) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed or 0)
    specs = {spec.name: spec for spec in graph.inputs}
    names = [name for layer in layers for name in (layer.down, layer.up)]
    found = {name: torch.randn(specs[name].shape, generator=generator) for name in names}
    return {name: tensor * (seed is not None) for name, tensor in found.items()}


def test_every_linear_layer_has_two_inputs_behind_the_others(graph) -> None:
    adapted, layers = with_adapter_inputs(graph, RANK)

    assert [layer.path for layer in layers] == ["proj", "twice", "out"]
    assert [(layer.inputs, layer.outputs) for layer in layers] == [(4, 6), (6, 6), (6, 5)]
    shapes = [(spec.name, spec.shape) for spec in adapted.inputs]
    assert shapes[:3] == [("x", (2, 4, 4, 4)), ("lora_A_0", (3, 4)), ("lora_B_0", (6, 3))]
    assert len(shapes) == 7
    assert len(graph.inputs) == 1


def test_zeros_change_nothing(graph) -> None:
    adapted, layers = with_adapter_inputs(graph, RANK)
    x = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(1))

    plain = Executor(graph).run({"x": x})
    found = Executor(adapted).run({"x": x, **given(adapted, layers, None)})

    assert torch.equal(found["y"], plain["y"])


def test_matrices_compute_as_merged_weights_do(graph, block) -> None:
    adapted, layers = with_adapter_inputs(graph, RANK)
    x = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    matrices = given(adapted, layers, 2)

    found = Executor(adapted).run({"x": x, **matrices})

    merged = Block().requires_grad_(False)
    merged.load_state_dict(block.state_dict())
    for layer in layers:
        weight = merged.get_parameter(f"{layer.path}.weight")
        weight += (matrices[layer.up] @ matrices[layer.down]).reshape(weight.shape)
    torch.testing.assert_close(found["y"], merged(x)["y"], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(found["y"], block(x)["y"], atol=1e-1)


def test_plans_see_the_same_sites(graph) -> None:
    adapted, _ = with_adapter_inputs(graph, RANK)

    assert [site.key for site in sites(adapted)] == [site.key for site in sites(graph)]


def test_an_adapter_takes_what_is_quantized_as_it_was_before(graph) -> None:
    editor = ProgramEditor(graph)
    node = editor.node(next(site.node for site in sites(graph) if site.key == "out"))
    data = node.args[0]
    integers = editor.call(QUANTIZE, (data, 0.5, 0, "int8"), before=node)  # fmt: skip
    floats = editor.call(DEQUANTIZE, (integers, 0.5, 0), before=node)
    node.replace_input_with(data, floats)

    adapted, layers = with_adapter_inputs(editor.finish(), RANK)

    name = adapted.placeholders[layers[-1].down]
    (product,) = next(n for n in adapted.program.graph.nodes if n.name == name).users
    assert product.args[0].name == data.name
