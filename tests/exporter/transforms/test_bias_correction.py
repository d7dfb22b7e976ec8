"""Bias correction: outputs keep their mean when the weights are quantized."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from qdx.exporter.errors import InternalError
from qdx.exporter.formats.affine import quantize_weight
from qdx.exporter.formats.quantization import WeightQuantization
from qdx.exporter.graph.analysis.sites import sites
from qdx.exporter.graph.execute.interpreter import run
from qdx.exporter.graph.ir.editing import ProgramEditor
from qdx.exporter.graph.ir.graph import Graph
from qdx.exporter.transforms.bias_correction import bias_corrected, mean_output_error
from tests.support.tracing import graph_of

COARSE = WeightQuantization("int4", "tensor")


class Pieces(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3)
        self.grouped = nn.Conv2d(8, 8, 3, groups=4)
        self.linear = nn.Linear(8, 16)
        self.bare = nn.Linear(16, 16, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.grouped(self.conv(x) + x[:, :, 1:-1, 1:-1])
        return self.bare(self.linear(x.flatten(2).transpose(1, 2)))


def inputs() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    # Channels of constant pictures: their mean is the same at each position of a kernel.
    return {"x": (torch.randn(64, 8, 1, 1) + 2).expand(-1, -1, 8, 8).contiguous()}


def means(graph: Graph, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Mean input channels of each site."""
    parameters = {name: weight.read() for name, weight in graph.weights.items()}
    conv = nn.functional.conv2d
    first = conv(x, parameters["conv.weight"], parameters["conv.bias"])
    second = first + x[:, :, 1:-1, 1:-1]
    third = conv(second, parameters["grouped.weight"], parameters["grouped.bias"], groups=4)
    fourth = nn.functional.linear(
        third.flatten(2).transpose(1, 2), parameters["linear.weight"], parameters["linear.bias"]
    )
    found = {"conv": x, "grouped": second, "linear": third}
    return {name: value.mean(dim=(0, 2, 3)) for name, value in found.items()} | {
        "bare": fourth.mean(dim=(0, 1))
    }


def with_dequantized_weights(graph: Graph) -> Graph:
    editor = ProgramEditor(graph)
    for name in ("conv.weight", "grouped.weight", "linear.weight"):
        weight = graph.weights[name]
        values = quantize_weight(weight.read(), COARSE).dequantized()
        editor.set_parameter(name, replace(weight, load=lambda values=values: values))
    return editor.finish()


@pytest.fixture(scope="module")
def graph() -> Graph:
    return graph_of(Pieces, inputs())[0]


def test_outputs_keep_their_mean(graph: Graph) -> None:
    x = inputs()
    quantizations = dict.fromkeys(["conv", "grouped", "linear", "bare"], COARSE)
    corrected = bias_corrected(graph, sites(graph), quantizations, means(graph, x["x"]))
    expected = run(graph, x)["y"].mean(dim=(0, 1))
    plain = run(with_dequantized_weights(graph), x)["y"].mean(dim=(0, 1))
    better = run(with_dequantized_weights(corrected), x)["y"].mean(dim=(0, 1))
    assert float((plain - expected).abs().max()) > 0.02
    assert float((better - expected).abs().max()) < 1e-5


def test_only_biases_change(graph: Graph) -> None:
    found = means(graph, inputs()["x"])
    corrected = bias_corrected(graph, sites(graph), {"conv": COARSE, "bare": COARSE}, found)
    changed = [
        name
        for name in graph.weights
        if not torch.equal(corrected.weights[name].read(), graph.weights[name].read())
    ]
    assert changed == ["conv.bias"]
    assert corrected.program.graph_module.code == graph.program.graph_module.code


def test_a_bias_is_derived_when_it_is_read_and_once(graph: Graph) -> None:
    reads = []
    weight = graph.weights["linear.weight"]

    def load() -> torch.Tensor:
        reads.append(weight.name)
        return weight.load()

    editor = ProgramEditor(graph)
    editor.set_parameter("linear.weight", replace(weight, load=load))
    watched = editor.finish()
    found = means(graph, inputs()["x"])
    corrected = bias_corrected(watched, sites(graph), {"linear": COARSE}, found)
    assert not reads
    for _ in range(2):
        corrected.weights["linear.bias"].read()
    assert reads == ["linear.weight"]


def test_exact_weights_need_no_correction() -> None:
    weight = torch.randn(4, 3, 3, 3)
    assert torch.equal(mean_output_error(weight, weight, torch.ones(6)), torch.zeros(4))


def test_sites_without_means_stay(graph: Graph) -> None:
    unseen = {"linear": torch.zeros(0)}
    same = bias_corrected(graph, sites(graph), {"linear": COARSE, "conv": COARSE}, unseen)
    for name, weight in graph.weights.items():
        assert torch.equal(same.weights[name].read(), weight.read())


def test_means_that_do_not_fit_are_refused(graph: Graph) -> None:
    with pytest.raises(InternalError, match=r"`linear`: \[3\] means"):
        bias_corrected(graph, sites(graph), {"linear": COARSE}, {"linear": torch.zeros(3)})
