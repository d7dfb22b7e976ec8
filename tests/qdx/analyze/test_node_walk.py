"""Derivatives through graphs, against finite differences and explicit Jacobians."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad

from qdx.analyze.node_walk import NodeWalk, dual, parts_of, plain_attention, vector_jacobian
from tests.support.tracing import graph_of


class Net(nn.Module):
    """What denoisers are made of: convolution, group normalization of a transposed tensor, attention, views."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.norm = nn.GroupNorm(2, 4)
        self.q, self.k, self.out = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = nn.functional.silu(self.conv(x)).flatten(2).transpose(1, 2)
        mixed = nn.functional.scaled_dot_product_attention(self.q(tokens), self.k(tokens), tokens)
        pictures = self.norm(mixed.transpose(1, 2).reshape(len(x), 4, 3, 3))
        return self.out(pictures.permute(0, 2, 3, 1)).view(len(x), 27)


@pytest.fixture(scope="module")
def net():
    x = torch.randn(2, 2, 3, 3, generator=torch.Generator().manual_seed(5))
    graph, module = graph_of(Net, {"x": x})
    return NodeWalk(graph), module, x


def direction(like, seed):
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed))


def test_values_are_the_modules(net):
    walk, module, x = net
    with torch.no_grad():
        torch.testing.assert_close(walk({"x": x})["y"], module(x))


def test_forward_products_are_finite_differences(net):
    walk, module, x = net
    along = direction(x, 1)
    with forward_ad.dual_level(), plain_attention(), torch.no_grad():
        _, found = parts_of(walk({"x": dual(x, along)})["y"])

    module = module.double()
    h, x, along = 1e-6, x.double(), along.double()
    with torch.no_grad():
        expected = (module(x + h * along) - module(x - h * along)) / (2 * h)
    module.float()
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-5)


def test_backward_products_are_those_of_the_explicit_jacobian(net):
    walk, module, x = net
    jacobian = torch.autograd.functional.jacobian(module, x).reshape(54, -1)
    weights = direction(torch.empty(2, 27), 2)

    found = vector_jacobian(walk, {"x": x}, {"y": weights}, ("x",))["x"]

    expected = (weights.reshape(-1) @ jacobian).reshape(x.shape)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


def test_a_derivative_takes_the_layout_of_its_value():
    value = torch.randn(2, 3, 4).transpose(1, 2)
    with forward_ad.dual_level():
        primal, tangent = parts_of(dual(value, torch.ones(2, 4, 3)))
        assert tangent.stride() == primal.stride() == value.stride()
        assert parts_of(dual(value, torch.ones(2, 4, 3)).transpose(1, 2).reshape(24))[1].sum() == 24
