"""What becomes of model code that tracing does not follow by itself."""

from __future__ import annotations

import torch
from torch import nn

from qdx.exporter.graph.analysis.flow import name_of
from qdx.exporter.graph.execute.interpreter import run
from tests.support.traced_modules import graph_of_module


class Embedding(nn.Module):
    """Fills a part of a tensor by way of its data, and reads data."""

    def forward(self, x):
        places = x.new_zeros(1, 6)
        places.data[:, 2:].copy_(x)
        return places + places.data.sum()


def test_what_is_written_and_read_as_data_is_part_of_the_graph():
    x = torch.arange(4.0)[None]

    graph = graph_of_module(Embedding(), {"x": torch.ones(1, 4)})

    (found,) = run(graph, {"x": x}).values()
    assert torch.equal(found, Embedding()(x))


class Checked(nn.Module):
    """Asserts something of its input, and of a size."""

    def forward(self, x, n):
        torch._assert_async((x > -100).all(), "not so small")
        torch._check(x.shape[0] < 9)
        return (x * n).to(torch.float64).float()


def test_checks_are_no_part_of_the_graph():
    given = {"x": torch.ones(2, 4), "n": torch.tensor(2)}

    graph = graph_of_module(Checked(), given, moving={"x": (0,)})

    names = {name_of(node) for node in graph.program.graph.nodes}
    assert not [name for name in names if "assert" in name or "constrain" in name]
    assert "all" not in names
    assert torch.equal(run(graph, given)["output"], Checked()(**given))


class Regions(nn.Module):
    """Switches casts of another device and gradients, as rotary embeddings do."""

    def forward(self, x, f):
        with torch.amp.autocast("cuda", enabled=False):
            pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
            turned = pairs * torch.polar(torch.ones_like(f), f)
            with torch.enable_grad():
                turned = turned + 1
            y = torch.view_as_real(turned).flatten(-2)
        return y.sin(), y


def test_regions_of_other_devices_and_of_gradients_are_part_of_the_graph():
    given = {"x": torch.randn(2, 4), "f": torch.rand(2)}

    graph = graph_of_module(Regions(), given)

    assert not [node for node in graph.program.graph.nodes if "wrap_with" in node.name]
    for found, expected in zip(run(graph, given).values(), Regions()(**given), strict=True):
        assert torch.allclose(found, expected, atol=1e-6)
