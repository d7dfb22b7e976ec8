"""What a trace computes at once, of values that are known, and what it must not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from qdx.exporter.capture.concrete import Concrete

ORDER = torch.tensor([3, 1, 2, 0])
X = torch.tensor([5, 6, 7, 8])


class Inverts(nn.Module):
    """Makes tables of its own of the known tensor, and reads a number of them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inverse = torch.empty_like(ORDER)
        inverse[ORDER] = torch.arange(4)
        starts = torch.cat([torch.tensor([0]), torch.cumsum(ORDER, dim=0)[:-1]])
        return x[inverse][: int(starts.max().item())] + starts


class WritesInto(nn.Module):
    """Writes what it is given into a tensor of the known one's shape, and then uses that one alone."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        table = torch.zeros_like(ORDER)
        table[ORDER] = x
        return table.sum() + 0 * x


class CountsOn(nn.Module):
    """Changes a known tensor between two uses."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        table = ORDER.clone()
        first = x * table
        table += 1
        return first + table


class WritesIntoPart(nn.Module):
    """Writes into a view of a tensor, and then uses the tensor."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        table = torch.zeros_like(ORDER)
        table[1:3].copy_(x[:2])
        return table.sum() * x


def traced(module: nn.Module) -> torch.export.ExportedProgram:
    with torch.no_grad(), Concrete([ORDER]):
        return torch.export.export(module, (torch.zeros_like(X),), strict=False)


@pytest.mark.parametrize("module", [Inverts(), WritesInto(), CountsOn()], ids=repr)
def test_a_trace_of_known_values_computes_what_python_does(module):
    program = traced(module).run_decompositions()
    assert torch.equal(program.module()(X), module(X))


def test_a_write_into_a_part_of_what_is_known_is_refused():
    with pytest.raises(ValueError, match="into a part of a tensor whose values it reads"):
        traced(WritesIntoPart())


def test_what_is_made_of_numbers_stays_an_operation_where_nothing_is_known():
    class Adds(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.arange(4)

    with torch.no_grad(), Concrete([]):
        program = torch.export.export(Adds(), (torch.zeros_like(X),), strict=False)
    assert torch.ops.aten.arange.default in {node.target for node in program.graph.nodes}
