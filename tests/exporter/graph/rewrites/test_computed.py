"""Constants that round, such as frequencies, are torch's own numbers in every artifact; all else is computed as before."""

from __future__ import annotations

import math
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from qdx.backends.onnxruntime.lower import lower
from qdx.exporter.graph.analysis.flow import name_of
from qdx.exporter.graph.execute.interpreter import run
from tests.support.traced_modules import graph_of_module


class Embedded(nn.Module):
    """Sines of a time at frequencies up to ten thousand, as diffusion models have them."""

    def forward(self, time: torch.Tensor) -> dict[str, torch.Tensor]:
        powers = torch.arange(16, dtype=torch.float32) * (-math.log(10000) / 16)
        angles = 10000 * time[:, None] * torch.exp(powers)[None]
        return {"y": torch.cat([angles.sin(), angles.cos()], dim=-1)}


TIME = torch.tensor([0.731, 0.93])


def names(graph):
    return list(map(name_of, graph.program.graph.nodes))


def test_sines_of_large_angles_are_torch_s(tmp_path: Path):
    graph = graph_of_module(Embedded(), {"time": TIME})
    assert "exp" not in names(graph)
    assert torch.equal(run(graph, {"time": TIME})["y"], Embedded()(TIME)["y"])

    lower(graph, "float32", tmp_path)
    assert "Exp" not in {node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node}
    session = onnxruntime.InferenceSession(
        tmp_path / "model.onnx", providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, {"time": TIME.numpy()})
    assert (torch.from_numpy(found) - Embedded()(TIME)["y"]).abs().max() < 1e-5


def test_what_is_moved_alone_or_is_decided_by_an_input_stays():
    class Shifted(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"y": x.exp() + torch.arange(4.0) * 2 + torch.tensor([1.0, 2.0, 3.0, 4.0])}

    graph = graph_of_module(Shifted(), {"x": torch.zeros(4)})
    assert {"exp", "arange", "mul"} <= set(names(graph))


def test_a_tensor_that_is_written_into_is_none_that_is_known():
    class Filled(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            places = torch.zeros(4, 2)
            before = places.exp()
            turned = places.T
            places[:, 0] = torch.arange(4.0)
            places[:, 1] = places[:, 1] + x
            halves = torch.arange(8.0).sqrt()
            halves.chunk(2)[0].copy_(x)
            return {
                "y": (turned / 3).sin(),
                "z": (places / 3).cos(),
                "before": before,
                "halves": halves + 1,
            }

    x = torch.randn(4, generator=torch.Generator().manual_seed(0))
    graph = graph_of_module(Filled(), {"x": x})
    expected = Filled()(x)
    assert all(torch.equal(one, expected[name]) for name, one in run(graph, {"x": x}).items())


@pytest.mark.parametrize("side", [2**7, 2**9])
def test_large_constants_are_left_to_the_runtime(side):
    class Large(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            grid = torch.arange(side)[:, None] * torch.arange(side)[None]
            return {"y": x + (grid / side).sin()}

    graph = graph_of_module(Large(), {"x": torch.zeros(side)})
    assert ("sin" in names(graph)) == (side > 2**8)


def test_open_sizes_stay_open():
    class Positions(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"y": x + torch.arange(x.shape[1]).float().sqrt()}

    graph = graph_of_module(Positions(), {"x": torch.zeros(2, 6)}, moving={"x": (1,)})
    assert "sqrt" in names(graph)
    x = torch.zeros(2, 9)
    assert torch.equal(run(graph, {"x": x})["y"], Positions()(x)["y"])
