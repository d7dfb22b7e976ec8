"""An operator that a target has no form for is refused by name, with the module that calls it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from qdx.exporter.errors import TargetRefusal
from tests.support.opened import TARGETS, opened
from tests.support.traced_modules import graph_of_module


class Strange(nn.Module):
    def forward(self, x):
        return torch.special.bessel_j0(x)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Identity(), Strange()])

    def forward(self, x):
        for block in self.blocks:
            x = block(x) + 1
        return x


@pytest.mark.parametrize("target", TARGETS)
def test_the_operator_and_its_module_are_named(target, tmp_path):
    graph = graph_of_module(Model(), {"x": torch.ones(1, 4)})

    with pytest.raises(TargetRefusal, match=r"`part.blocks.1`: `aten.special_bessel_j0.default`"):
        opened(graph, target, tmp_path)
