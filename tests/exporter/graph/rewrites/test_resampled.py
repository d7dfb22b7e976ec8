"""Resampling that smooths and keeps corners in their place is written as products that compute the same."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional

from qdx.backends.onnxruntime.lower import lower
from qdx.exporter.errors import TargetRefusal
from qdx.exporter.graph.analysis.flow import name_of
from tests.support.traced_modules import graph_of_module


class Resampled(nn.Module):
    def __init__(self, mode: str, size: tuple[int, int] | None, *, align_corners: bool) -> None:
        super().__init__()
        self._size = size
        self._options = {"mode": mode, "align_corners": align_corners, "antialias": True}

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        size = self._size or (2 * x.shape[-2], 2 * x.shape[-1])
        return {"y": functional.interpolate(x, size=size, **self._options)}


X = torch.randn(1, 4, 6, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(16, 12), (3, 2), (1, 5)])
def test_it_computes_what_torch_does(tmp_path: Path, mode, size):
    module = Resampled(mode, size, align_corners=True)
    lower(graph_of_module(module, {"x": X}), "float32", tmp_path)
    session = onnxruntime.InferenceSession(
        tmp_path / "model.onnx", providers=["CPUExecutionProvider"]
    )

    (found,) = session.run(None, {"x": X.numpy()})

    assert torch.allclose(torch.from_numpy(found), module(X)["y"], atol=1e-5)


def test_open_sizes_are_refused():
    module = Resampled("bicubic", None, align_corners=True)
    with pytest.raises(TargetRefusal, match="needs fixed sizes"):
        graph_of_module(module, {"x": X}, moving={"x": (2, 3)})


def test_other_resampling_stays():
    graph = graph_of_module(Resampled("bicubic", (16, 12), align_corners=False), {"x": X})
    assert "_upsample_bicubic2d_aa" in map(name_of, graph.program.graph.nodes)
