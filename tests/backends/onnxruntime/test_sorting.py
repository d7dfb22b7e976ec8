"""Sorts give equal elements in their order, whatever their type and direction."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import nn

from qdx.backends.onnxruntime.lower import lower
from tests.support.traced_modules import graph_of_module


class Sorts(nn.Module):
    def __init__(self, *, descending: bool, dim: int) -> None:
        super().__init__()
        self._options = {"descending": descending, "dim": dim, "stable": True}

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        values, indices = torch.sort(x, **self._options)
        return {"values": values, "indices": indices, "order": x.argsort(**self._options)}


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.float32])
@pytest.mark.parametrize(("descending", "dim"), [(True, 1), (False, 0)])
def test_a_stable_sort_keeps_the_order_of_equals(tmp_path: Path, dtype, descending, dim):
    module = Sorts(descending=descending, dim=dim)
    x = torch.randint(0, 2, (6, 40), generator=torch.Generator().manual_seed(0)).to(dtype)
    lower(graph_of_module(module, {"x": x}), "float32", tmp_path)
    session = onnxruntime.InferenceSession(
        tmp_path / "model.onnx", providers=["CPUExecutionProvider"]
    )

    found = session.run(None, {"x": x.numpy()})

    for one, wanted in zip(found, module(x).values(), strict=True):
        assert torch.equal(torch.from_numpy(one), wanted)
