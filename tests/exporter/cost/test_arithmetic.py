"""Multiply-accumulates of a call."""

from __future__ import annotations

import torch
from torch import nn

from qdx.exporter.cost.arithmetic import macs_of_call
from tests.support.tracing import graph_of


class Layers(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 8, 3, padding=1)
        self.linear = nn.Linear(16, 5)

    def forward(self, x):
        tokens = self.conv(x).flatten(2)  # batch, 8, 16
        attended = nn.functional.scaled_dot_product_attention(*([tokens.unsqueeze(1)] * 3))
        return self.linear(attended.relu())


def test_convolutions_linear_operations_and_both_products_of_attention_count():
    graph, _ = graph_of(Layers, {"x": torch.zeros(2, 4, 4, 4)})

    conv = 2 * 8 * 16 * 4 * 9
    attention = 2 * (2 * 8 * 8 * 16)
    assert macs_of_call(graph) == conv + attention + 2 * 8 * 16 * 5
