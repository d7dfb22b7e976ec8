"""Model code in forms that torch's tracing does not follow is traced all the same."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import nn

from qdx.exporter.capture.calls import CallRecord
from qdx.exporter.capture.trace import trace
from qdx.exporter.graph.execute.interpreter import run
from qdx.exporter.graph.ir.weights import LazyWeights


class Perturbed(nn.Module):
    """Adds a mask in which pictures see themselves alone, as perturbed attention of Stable Diffusion 3 makes it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = torch.zeros(6, 6)
        mask[:4, :4] = -1.0
        mask[:4, :4].fill_diagonal_(0)
        return x + mask


def test_a_diagonal_of_a_part_is_filled():
    record = CallRecord("transformer", "forward", {"x": torch.empty(6, 6, device="meta")})
    skeleton = SimpleNamespace(modules={"transformer": Perturbed()})
    graph = trace(skeleton, record, LazyWeights({}))

    graph.program.run_decompositions({})  # what torch's exporter to ONNX begins with
    x = torch.randn(6, 6, generator=torch.Generator().manual_seed(0))
    (found,) = run(graph, {"x": x}).values()
    assert torch.equal(found, Perturbed()(x))
