"""Second moments of patches, against the products that convolutions and linear operations compute with them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from qdx.exporter.errors import InvalidModel
from qdx.exporter.graph.analysis.sites import sites as find_sites
from qdx.tune.moments import moments_bytes, patches_of, second_moments
from tests.support.traced_modules import graph_of_module


def trace_module(module, value):
    return graph_of_module(module, {"x": value}, weights_of=module)


class Alone(nn.Module):
    """One layer."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)


LAYERS = {
    "linear": (Alone(nn.Linear(6, 5)), (2, 7, 6)),
    "conv1d": (Alone(nn.Conv1d(6, 4, 3, stride=2, padding=1, groups=2)), (2, 6, 11)),
    "conv2d": (
        Alone(nn.Conv2d(6, 4, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2))),
        (2, 6, 9, 8),
    ),
    "same": (Alone(nn.Conv2d(4, 4, (5, 3), padding="same", groups=2)), (2, 4, 6, 7)),
    "conv3d": (Alone(nn.Conv3d(3, 4, 2)), (1, 3, 4, 5, 3)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_product_with_the_rows_is_the_layers_output(name):
    layer, shape = LAYERS[name]
    graph = trace_module(layer, torch.zeros(shape))
    (site,) = find_sites(graph)
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    patches = patches_of(graph, site)
    rows = patches.rows(values, 10**6, 0.0)
    weight = layer.layer.weight.detach().reshape(patches.groups, -1, patches.columns)
    found = torch.einsum("grc,goc->rgo", rows, weight).reshape(rows.shape[1], -1)
    with torch.no_grad():
        wanted = layer(values) - layer(torch.zeros(shape))
    wanted = wanted.movedim(1, -1) if name != "linear" else wanted

    assert torch.allclose(found, wanted.reshape(found.shape), atol=1e-5)


def test_some_rows_are_spread_over_all():
    layer, shape = LAYERS["conv2d"]
    graph = trace_module(layer, torch.zeros(shape))
    patches = patches_of(graph, find_sites(graph)[0])
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    every = patches.rows(values, 10**6, 0.0)
    total = every.shape[1]
    some = [patches.rows(values, 8, phase) for phase in (0.0, 0.99)]

    for rows in some:
        places = [(every[0] == row).all(dim=1).nonzero().item() for row in rows[0]]
        part = total / 8
        assert all(n * part - 1 < place < (n + 1) * part for n, place in enumerate(places))
    assert not torch.equal(*some)


class Shared(nn.Module):
    """Two layers that read one input, and one that reads another."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.three = (nn.Linear(6, 6) for _ in range(3))

    def forward(self, x):
        return self.three(torch.relu(self.one(x) + self.two(x)))


def test_moments_are_means_over_the_calls_and_shared_inputs_have_one():
    torch.manual_seed(0)
    module = Shared()
    graph = trace_module(module, torch.zeros(2, 5, 6))
    sites = find_sites(graph)
    patches = {site.key: patches_of(graph, site) for site in sites}
    calls = [{graph.inputs[0].name: torch.randn(2, 5, 6)} for _ in range(3)]
    found = second_moments(graph, calls, patches.values())
    rows = torch.cat([call[graph.inputs[0].name].reshape(-1, 6) for call in calls])
    inner = torch.relu(module.one(rows) + module.two(rows)).detach()

    assert patches["one"] == patches["two"]
    assert moments_bytes(patches.values()) == 2 * 6 * 6 * 4
    assert torch.allclose(found[patches["one"]][0], rows.T @ rows / 30, atol=1e-5)
    assert torch.allclose(found[patches["three"]][0], inner.T @ inner / 30, atol=1e-5)


def test_calls_that_show_nothing_are_refused():
    graph = trace_module(Shared(), torch.zeros(2, 5, 6))
    patches = [patches_of(graph, site) for site in find_sites(graph)]
    with pytest.raises(InvalidModel, match="no recorded call"):
        second_moments(graph, [], patches)


def test_an_input_that_is_not_finite_is_refused():
    graph = trace_module(Shared(), torch.zeros(2, 5, 6))
    patches = [patches_of(graph, site) for site in find_sites(graph)]
    call = {graph.inputs[0].name: torch.full((2, 5, 6), torch.nan)}
    with pytest.raises(InvalidModel, match="NaN or infinity"):
        second_moments(graph, [call], patches)
