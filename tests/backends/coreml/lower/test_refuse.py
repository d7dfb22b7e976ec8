"""What only shows in a converted program is refused, with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from qdx.backends.coreml.lower.refuse import check_halves
from qdx.exporter.errors import TargetRefusal
from qdx.exporter.plan.resolve.resolution import FloatTypes
from qdx.targets import load_target
from tests.support.lowering import lower
from tests.support.tracing import graph_of


class Unpatched(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x.reshape(1, 2, 2, 2, 2, 2).permute(0, 5, 1, 3, 2, 4) * 2).exp()


def test_more_dimensions_than_core_ml_has(tmp_path: Path) -> None:
    graph, _ = graph_of(Unpatched, {"x": torch.ones(1, 32)})
    with pytest.raises(TargetRefusal, match="more than 5 dimensions") as caught:
        lower(graph, FloatTypes("float16"), load_target("coreml"), tmp_path)

    assert any("of rank 6, Core ML takes 5" in one.reason for one in caught.value.refusals)


def test_the_larger_of_two_halves_counts() -> None:
    graph, _ = graph_of(Unpatched, {"x": torch.ones(1, 32)})
    phone = load_target("iphone-a17")
    check_halves((10**9, 8 * 10**8), graph, phone)

    with pytest.raises(TargetRefusal, match="1,100 MB of weights"):
        check_halves((7 * 10**8, 11 * 10**8), graph, phone)
