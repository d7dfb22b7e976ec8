"""Outputs that share a value with each other or with an input, on every target."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.support.opened import TARGETS, opened
from tests.support.traced_modules import graph_of_module


class Passing(nn.Module):
    """The last of several states by itself and among the others, and inputs as they came."""

    def forward(self, x, mask):
        y = x * 2
        return {"last": y, "states": [x, y, x], "mask": mask}


@pytest.mark.parametrize("moving", [None, {"x": (0,), "mask": (0,)}], ids=["static", "dynamic"])
@pytest.mark.parametrize("target", TARGETS)
def test_outputs_that_are_one_value_are_all_kept(target, moving, tmp_path):
    if target == "coreml" and moving:
        moving = None  # refused: its packages have fixed sizes
    inputs = {"x": torch.arange(8.0).reshape(2, 4), "mask": torch.tensor([5.0, 6.0])}
    graph = graph_of_module(Passing(), inputs, moving=moving)

    runner = opened(graph, target, tmp_path)

    results = runner({name: value.numpy() for name, value in inputs.items()})
    found = [torch.from_numpy(results[spec.name]) for spec in runner.outputs]
    assert len(results) == 5
    x, mask = inputs.values()
    for result, expected in zip(found, (x * 2, x, x * 2, x, mask), strict=True):
        assert torch.equal(result, expected)
