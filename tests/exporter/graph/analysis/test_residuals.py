"""Residual additions that a plan can address: those whose sum a weighted operation reads as it is."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from qdx.exporter.graph.analysis.sites import sites
from tests.support.tiny_graphs import graphs_of
from tests.support.tracing import graph_of

X = {"x": torch.randn(1, 16, 8, 8)}


def residuals(forward, inputs=X):
    """The residual sites of a block with two convolutions, a shortcut, a norm and a convolution at the end."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.end = (nn.Conv2d(16, 16, 3, padding=1) for _ in range(3))
            self.shortcut, self.norm = nn.Conv2d(16, 16, 1), nn.GroupNorm(4, 16)
            self.linear = nn.Linear(16, 16)

        def forward(self, x):
            return forward(self, x)

    graph, _ = graph_of(Block, inputs)
    nodes = {node.name: node for node in graph.program.graph.nodes}
    return [
        (site.key, str(nodes[site.node].args[site.ports["skip"]]))
        for site in sites(graph)
        if site.op == "add"
    ]


@pytest.mark.parametrize(
    ("forward", "skip"),
    [
        (lambda m, x: m.end(x + m.two(m.one(x))), "x"),
        (lambda m, x: m.end((m.two(m.one(x)) + x) / 1.0), "x"),
        (lambda m, x: m.end(torch.relu(x) + m.two(m.one(x)).contiguous()), "relu"),
        (lambda m, x: m.linear((m.one(x) + x).flatten(2).transpose(1, 2)), "x"),
        (lambda m, x: m.end(m.shortcut(x) + m.two(m.one(x))), "conv2d"),
    ],
    ids=["either side", "divided by one", "moved", "into a linear operation", "shortcut"],
)
def test_the_branch_that_meets_a_product_is_its_input(forward, skip):
    ((key, found),) = residuals(forward)

    assert key == "add"
    assert found.removeprefix("tensors_") == skip


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: m.end(m.norm(x + m.one(x))),
        lambda m, x: m.end((x + m.one(x)) / 2.0),
        lambda m, x: m.end(x + torch.relu(m.one(x))),
        lambda m, x: m.end(m.one(x) + x.mean((2, 3), keepdim=True)),
        lambda m, x: m.end(torch.add(x, m.one(x), alpha=2)),
    ],
    ids=["norm behind", "halved", "activation between", "broadcast", "scaled"],
)
def test_other_additions_are_no_sites(forward):
    assert residuals(forward) == []


def test_it_knows_the_operation_that_its_skip_meets():
    found = {s.key: s for s in sites(graphs_of("sd")["unet.forward"])}
    nodes = {s.node: s.key for s in found.values()}

    assert nodes[found["down_blocks.0.attentions.0.add"].product] == (
        "down_blocks.0.attentions.0.proj_out"
    )
    assert {s.product for s in found.values() if not s.is_residual} == {""}


def test_additions_of_one_module_are_numbered():
    found = residuals(lambda m, x: m.end(x + m.two(x + m.one(x))))

    assert [key for key, _ in found] == ["add", "add#2"]


def test_a_unet_has_one_at_the_end_of_each_transformer_and_before_each_smaller_picture():
    found = {s.key: s for s in sites(graphs_of("sd")["unet.forward"]) if s.role == "residual"}
    transformers = {key for key in found if key.endswith(".transformer_blocks.0.add")}

    assert len(transformers) == 4
    assert found.keys() - transformers == {"down_blocks.0.attentions.0.add"}
    assert {found[key].stage for key in found} == {"down.0", "mid", "up.1"}
    assert all(site.op == "add" and site.macs == 0 for site in found.values())
