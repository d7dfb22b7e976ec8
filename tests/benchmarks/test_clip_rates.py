"""Clip rates count what clipping moves further than rounding can, at each quantizer."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks.clip_rates import clip_rates
from qdx.exporter.transforms.insert_quantizers import InsertQuantizers
from qdx.exporter.transforms.placement import (
    ActivationQuantization,
    SitePlacement,
    TimestepGroups,
)
from qdx.exporter.transforms.recipe import Recipe
from tests.support.tracing import graph_of


class Layers(nn.Module):
    """Two projections of one input."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 2)
        self.b = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return self.a(x) + self.b(x) + timestep.float() * 0


# With a scale of 0.1, 12.7 is the greatest value and 12.74 is rounded to it; below, -12.8.
X = torch.tensor([[12.74, 12.76, -12.84, -12.86], [0.0, 1.0, 12.7, 99.0]])


def inputs(timestep: float) -> dict[str, torch.Tensor]:
    return {"x": X, "timestep": torch.tensor(timestep)}


@pytest.fixture(scope="module")
def graph():
    found, _ = graph_of(Layers, inputs(900.0))
    return found


def recipe_of(quantization: ActivationQuantization, *, timestep: str | None = None) -> Recipe:
    placed = (SitePlacement("a", {0: quantization}), SitePlacement("b", {0: wide}))
    return Recipe("unet.forward", (InsertQuantizers(placed, timestep),))


wide = ActivationQuantization("int8", 1.0, 0)


def test_values_within_half_a_step_of_the_range_are_not_clipped(graph):
    rates = clip_rates(graph, recipe_of(ActivationQuantization("int8", 0.1, 0)), [inputs(0.0)] * 3)
    assert rates == {"a[0]": pytest.approx(3 / 8), "b[0]": 0.0}


def test_a_zero_point_moves_the_range(graph):
    # From 0 to 25.5: the two values below and the one far above are outside.
    rates = clip_rates(graph, recipe_of(ActivationQuantization("int8", 0.1, -128)), [inputs(0.0)])
    assert rates["a[0]"] == pytest.approx(3 / 8)


def test_each_group_of_timesteps_has_a_range_of_its_own(graph):
    groups = TimestepGroups((500.0,), (10.0, 1.0))
    grouped = recipe_of(ActivationQuantization("int8", 0.1, 0, groups=groups), timestep="timestep")
    assert clip_rates(graph, grouped, [inputs(900.0)])["a[0]"] == 0.0
    assert clip_rates(graph, grouped, [inputs(100.0)])["a[0]"] == pytest.approx(3 / 8)


def test_scales_of_tokens_clip_nothing_and_are_left_out(graph):
    recipe = recipe_of(ActivationQuantization("int8", 1.0, 0, token=True))
    assert clip_rates(graph, recipe, [inputs(0.0)]).keys() == {"b[0]"}
