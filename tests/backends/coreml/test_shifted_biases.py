"""A number added to a part of what a linear operation gives is a part of its bias, in float16."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from qdx.backends.coreml.run import CoreMlRunner
from tests.backends.coreml.test_lower import arrays, lowered, program_of
from tests.backends.tracing import graph_of, sqnr_db


class Modulated(nn.Module):
    """As the blocks of transformers do it; one channel's scale is close to minus one."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(16, elementwise_affine=False)
        self.linear = nn.Linear(8, 48)
        with torch.no_grad():
            self.linear.bias[21] = -0.999
            self.linear.weight[21] *= 1e-3

    def forward(self, x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        shift, scale, gate = self.linear(c).chunk(3, dim=1)
        return gate[:, None] * (self.norm(x) * (1 + scale[:, None]) + shift[:, None])


class Shared(Modulated):
    """The scale is read a second time."""

    def forward(self, x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        shift, scale, gate = self.linear(c).chunk(3, dim=1)
        return (gate + scale)[:, None] * (self.norm(x) * (1 + scale[:, None]) + shift[:, None])


def given() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, 16, generator=generator)
    x[..., 5] = 60.0  # as activations are that such a scale belongs to
    return {"x": x, "c": torch.randn(2, 8, generator=generator)}


def error_db(make: type[nn.Module], folder: Path) -> float:
    """Decibels of the one channel."""
    graph, module = graph_of(make, given())
    found = CoreMlRunner(lowered(graph, folder), {})(arrays(given()))["y"]
    return sqnr_db(module(**given())[..., 5], found[..., 5])


def test_float16_does_not_round_before_the_number_is_added(tmp_path: Path) -> None:
    assert error_db(Modulated, tmp_path) > 55


def test_what_others_read_too_stays_as_it_is(tmp_path: Path) -> None:
    graph, module = graph_of(Shared, given())
    found = CoreMlRunner(lowered(graph, tmp_path), {})(arrays(given()))["y"]

    assert sqnr_db(module(**given())[..., 6:], found[..., 6:]) > 55


def test_what_is_added_differs_from_one(tmp_path: Path) -> None:
    graph, _ = graph_of(Modulated, given())
    program = program_of(lowered(graph, tmp_path))
    names = {v.name: op for op in program.main.operations for v in op.outputs}
    added = [
        names[str(name)].inputs["val"][0].array()  # type: ignore[union-attr]
        for op in program.main.operations
        if op.kind == "add"
        for name in op.inputs["y"]
        if names[str(name)].kind == "const"
    ]

    assert [array.shape for array in added] == [(1, 1, 16)]
    assert 0 < abs(added[0]).max() < 5e-4
