"""Complex numbers inside of a graph and on its face, on every target."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.support.opened import TARGETS, opened
from tests.support.traced_modules import graph_of_module


class Rotated(nn.Module):
    """Rotary embeddings from a constant table, from angles, and from complex numbers that come from outside."""

    def __init__(self):
        super().__init__()
        angles = torch.outer(torch.arange(8.0), torch.tensor([1.0, 0.1, 0.01]))
        self.table = torch.polar(torch.ones_like(angles), angles)

    def forward(self, x, places, rotation):
        own = torch.polar(torch.ones_like(places), places)[:, None].expand(-1, 3)
        rotations = torch.cat([own, self.table[: x.shape[1] - 2]])[None, :, None] * rotation
        pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
        return {"sample": torch.view_as_real(pairs * rotations).flatten(3), "rotations": rotations}


@pytest.mark.parametrize(
    ("target", "moving"),
    [*((target, None) for target in TARGETS), ("onnxruntime", {"x": (1,)})],
    ids=[*TARGETS, "dynamic"],
)
def test_complex_numbers_are_computed_in_pairs(target, moving, tmp_path):
    generator = torch.Generator().manual_seed(0)
    inputs = {
        "x": torch.randn(1, 6, 2, 6, generator=generator),
        "places": torch.tensor([0.5, 3.0]),
        "rotation": torch.polar(torch.ones(3), torch.randn(3, generator=generator)),
    }
    graph = graph_of_module(Rotated(), inputs, moving=moving)

    runner = opened(graph, target, tmp_path)

    given = inputs | {"rotation": torch.view_as_real(inputs["rotation"])}
    results = runner({name: value.numpy() for name, value in given.items()})
    expected = Rotated()(**inputs)
    found = torch.view_as_complex(torch.from_numpy(results["rotations"]))
    assert torch.allclose(found, expected["rotations"], atol=1e-5)
    assert torch.allclose(torch.from_numpy(results["sample"]), expected["sample"], atol=1e-5)
