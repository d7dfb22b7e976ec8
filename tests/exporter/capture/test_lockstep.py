"""A graph of open sizes is right at others if a trace at those holds the same operations; else it is not taken for right."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from qdx.exporter.capture.calls import CallRecord
from qdx.exporter.capture.lockstep import same_computation
from qdx.exporter.capture.trace import trace
from qdx.exporter.graph.ir.graph import Graph
from qdx.exporter.graph.ir.weights import LazyWeights


class Skeleton:
    """Just what tracing looks at: the module of a name."""

    def __init__(self, module: nn.Module) -> None:
        self.modules = {"unet": module}


def traced(module: nn.Module, size: int, *, is_open: bool) -> Graph:
    sample = torch.empty(2, 4, size, size + 8, device="meta")
    record = CallRecord("unet", "forward", {"sample": sample})
    moving = {"sample": (0, 2, 3)} if is_open else None
    return trace(Skeleton(module), record, LazyWeights({}), moving=moving)  # type: ignore[arg-type]


class DownAndUp(nn.Module):
    """Passes its size on where it does not divide, as a U-Net does."""

    def forward(self, sample: Tensor) -> dict[str, Tensor]:
        low = functional.avg_pool2d(sample, 2, ceil_mode=True)
        if sample.shape[2] % 2 or sample.shape[3] % 2:
            high = functional.interpolate(low, size=sample.shape[2:], mode="nearest")
        else:
            high = functional.interpolate(low, scale_factor=2.0, mode="nearest")
        return {"sample": high + sample}


class Padded(nn.Module):
    """Pads by a whole patch where a size does not divide, and is cut again."""

    def forward(self, sample: Tensor) -> dict[str, Tensor]:
        height = sample.shape[2]
        if height % 2:
            sample = functional.pad(sample, (0, 0, 0, 2 - height % 2))
        return {"sample": (sample.softmax(dim=2))[:, :, :height]}


class Scaled(nn.Module):
    """Multiplies by a number that depends on whether the size divides."""

    def forward(self, sample: Tensor) -> dict[str, Tensor]:
        return {"sample": sample * (2.0 if sample.shape[2] % 2 else 3.0)}


class Averaged(nn.Module):
    """Divides by a size, which every trace follows."""

    def forward(self, sample: Tensor) -> dict[str, Tensor]:
        return {"sample": sample * (1 / sample.shape[2]) + sample.shape[3]}


def test_numbers_that_follow_from_sizes_are_right_at_all() -> None:
    odd = traced(Averaged(), 17, is_open=True)

    assert same_computation(odd, traced(Averaged(), 16, is_open=False))


def test_the_branch_for_sizes_that_do_not_divide_is_right_for_those_that_do() -> None:
    odd = traced(DownAndUp(), 17, is_open=True)

    assert same_computation(odd, traced(DownAndUp(), 16, is_open=False))
    assert same_computation(odd, traced(DownAndUp(), 23, is_open=False))


@pytest.mark.parametrize("model", [Padded, Scaled])
def test_another_computation_is_told(model: type[nn.Module]) -> None:
    odd = traced(model(), 17, is_open=True)

    assert same_computation(odd, traced(model(), 23, is_open=False))
    assert not same_computation(odd, traced(model(), 16, is_open=False))


def test_the_branch_for_sizes_that_divide_is_not_right_for_others() -> None:
    even = traced(DownAndUp(), 16, is_open=True)

    assert same_computation(even, traced(DownAndUp(), 32, is_open=False))
    assert not same_computation(even, traced(DownAndUp(), 17, is_open=False))
