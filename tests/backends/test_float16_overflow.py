"""Values that leave float16 and come back: infinite where they are computed in float16, right where they are float32.

Whatever executes an artifact here must show what its target would compute.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from qdx.backends.registry import get_backend
from qdx.exporter.graph.ir.graph import Graph
from qdx.exporter.measure.metrics import sqnr_db
from qdx.exporter.plan.resolve.resolution import FloatTypes
from qdx.targets import list_targets, load_target
from tests.support.lowering import lower
from tests.support.tracing import graph_of

X = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0))
TARGETS = [name for name in ("coreml", "tensorrt") if name in list_targets()]


class Net(nn.Module):
    """A feed-forward whose values are beyond float16, and a norm that brings them back."""

    def __init__(self, *, clamps: bool = False) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)
        self.norm, self.out = nn.LayerNorm(8), nn.Linear(8, 8)
        self.clamps = clamps
        with torch.no_grad():
            self.up.weight.mul_(8)
            self.down.weight.mul_(2e5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.down(self.up(x).relu())
        return self.out(self.norm(x.clamp(-65504, 65504) if self.clamps else x))


def computed(graph: Graph, target: str, folder: Path) -> np.ndarray:
    profile = load_target(target)
    lower(graph, FloatTypes("float16"), profile, folder)
    runner = get_backend(profile.runtime).open(folder, {})
    (spec,) = runner.inputs
    (found,) = runner({spec.name: X.numpy().astype(spec.dtype)}).values()
    return found.astype(np.float32)


@pytest.mark.parametrize("target", TARGETS)
def test_an_overflow_shows_and_float32_or_a_clamp_prevents_it(target: str, tmp_path: Path) -> None:
    graph, module = graph_of(Net, {"x": X})
    wide = replace(graph, large=frozenset([("down", "output")]))
    clamped, bounded = graph_of(lambda: Net(clamps=True), {"x": X})

    found = {}
    for name, one in (("half", graph), ("wide", wide), ("clamped", clamped)):
        (tmp_path / name).mkdir()
        found[name] = computed(one, target, tmp_path / name)

    assert not np.isfinite(found["half"]).all()
    assert sqnr_db(module(X).detach(), torch.from_numpy(found["wide"])) > 50
    assert sqnr_db(bounded(X).detach(), torch.from_numpy(found["clamped"])) > 40
