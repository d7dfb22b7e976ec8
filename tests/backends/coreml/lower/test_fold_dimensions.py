"""Tensors of six dimensions and more are lowered as tensors of five and fewer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from qdx.backends.coreml.run import CoreMlRunner
from qdx.exporter.errors import TargetRefusal
from tests.support.coreml_lowered import arrays, lowered, program_of
from tests.support.tracing import graph_of, sqnr_db

Function = Callable[[torch.Tensor], torch.Tensor]


class Applied(nn.Module):
    """A convolution, then what is tried."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.conv = nn.Conv3d(4, 8, 1)
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self.conv(x))


def patched(x: torch.Tensor) -> torch.Tensor:
    """Frames, rows and columns from channels: [1, 8, 2, 4, 6] as [1, 1, 2, 2, 2, 2, 4, 6] and back."""
    x = x.reshape(1, -1, 2, 2, 2, *x.shape[2:]).permute(0, 1, 5, 2, 6, 3, 7, 4)
    return x.flatten(6, 7).flatten(4, 5).flatten(2, 3)


def shared(x: torch.Tensor) -> torch.Tensor:
    """A transposed tensor that several take, each in its own way."""
    many = x.reshape(1, 2, 2, 2, *x.shape[2:]).permute(3, 0, 4, 1, 6, 5, 2)
    return many[1].flatten() + many.flatten()[:192] + many[:, :, 1:].reshape(2, -1).sum(0).repeat(2)


def stacked(x: torch.Tensor) -> torch.Tensor:
    halves = x.reshape(1, 2, 4, *x.shape[2:])
    return torch.stack((halves[:, 0], halves[:, 1]), 3).reshape(1, 4, 4, *x.shape[3:])


def joined(x: torch.Tensor) -> torch.Tensor:
    many = x.reshape(1, 2, 4, *x.shape[2:])
    both = torch.cat((many, 2 * many[:, :, :1]), 2)
    return torch.stack((both[:, 0], -both[:, 1]), 4).permute(0, 1, 4, 2, 3, 5).flatten(0, 3)


def averaged(x: torch.Tensor) -> torch.Tensor:
    return x.reshape(1, 2, 4, *x.shape[2:]).mean(2)


def strided(x: torch.Tensor) -> torch.Tensor:
    return x.reshape(1, 2, 4, *x.shape[2:])[:, 1:, 1:-1:2, :, 1:3].flatten(0, 2)


def shifted(x: torch.Tensor) -> torch.Tensor:
    many = nn.functional.silu(x.reshape(1, 2, 4, *x.shape[2:]))
    parts = torch.arange(8.0).reshape(1, 2, 4, 1, 1, 1)
    return (many * parts + many.mean((3, 4, 5), keepdim=True)).flatten(1, 2)


@pytest.mark.parametrize("function", [patched, shared, stacked, joined, averaged, strided, shifted])
def test_what_is_computed_stays_the_same(function: Function, tmp_path: Path) -> None:
    inputs = {"x": torch.randn(1, 4, 2, 4, 6, generator=torch.Generator().manual_seed(0))}
    graph, module = graph_of(lambda: Applied(function), inputs)
    folder = lowered(graph, tmp_path, "float32", "coreml-ios17")
    shapes = [value.type.shape for op in program_of(folder).main.operations for value in op.outputs]

    assert max(len(shape or ()) for shape in shapes) <= 5
    assert sqnr_db(module(**inputs), CoreMlRunner(folder, {})(arrays(inputs))["y"]) > 120


def test_empty_tensors_leave_no_trace(tmp_path: Path) -> None:
    inputs = {"x": torch.randn(1, 4, 2, 4, 6)}

    def padded(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x[:, :, :1].repeat(1, 1, 0, 1, 1), x], 2)

    graph, module = graph_of(lambda: Applied(padded), inputs)
    folder = lowered(graph, tmp_path, "float32")

    assert sqnr_db(module(**inputs), CoreMlRunner(folder, {})(arrays(inputs))["y"]) > 120


def test_what_has_no_rule_is_refused_by_its_name(tmp_path: Path) -> None:
    def softened(x: torch.Tensor) -> torch.Tensor:
        return x.reshape(1, 2, 4, *x.shape[2:]).softmax(2).flatten(1, 2)

    graph, _ = graph_of(lambda: Applied(softened), {"x": torch.randn(1, 4, 2, 4, 6)})
    with pytest.raises(TargetRefusal, match="more than 5 dimensions") as refusal:
        lowered(graph, tmp_path)
    assert any("softmax of rank 6" in found.reason for found in refusal.value.refusals)
