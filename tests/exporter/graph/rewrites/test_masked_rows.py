"""Attention of rows that a mask hides as a whole is zero, as in torch, and no row of another is touched."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional

from qdx.backends.onnxruntime.lower import lower
from qdx.exporter.graph.analysis.flow import name_of
from qdx.exporter.graph.analysis.sites import sites
from qdx.exporter.graph.execute.interpreter import run
from qdx.exporter.graph.rewrites.open_attention import open_attention
from tests.support.traced_modules import graph_of_module


class Padded(nn.Module):
    """Causal attention of a text with padding in front, as language models have it."""

    def __init__(self, *, by_query: bool = True) -> None:
        super().__init__()
        self._by_query = by_query

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        seen = mask[:, None, None, :] > 0
        if self._by_query:
            causal = torch.ones(x.shape[-2], x.shape[-2], dtype=torch.bool).tril()
            seen = seen & causal
        return {"y": functional.scaled_dot_product_attention(x, x, x, attn_mask=seen)}


X = torch.randn(1, 2, 6, 4, generator=torch.Generator().manual_seed(0))
MASK = torch.tensor([[0, 0, 1, 1, 1, 1]])


def test_every_target_has_zeros_there(tmp_path: Path):
    graph = graph_of_module(Padded(), {"x": X, "mask": MASK})
    lower(graph, "float32", tmp_path)
    session = onnxruntime.InferenceSession(
        tmp_path / "model.onnx", providers=["CPUExecutionProvider"]
    )

    expected = Padded()(X, MASK)["y"]
    (found,) = session.run(None, {"x": X.numpy(), "mask": MASK.numpy()})
    opened = open_attention(graph, [site.key for site in sites(graph)])

    assert (expected[:, :, :2] == 0).all()
    assert torch.allclose(torch.from_numpy(found), expected, atol=1e-6)
    assert torch.allclose(run(opened, {"x": X, "mask": MASK})["y"], expected, atol=1e-6)


def test_a_mask_that_is_the_same_for_every_query_stays():
    graph = graph_of_module(Padded(by_query=False), {"x": X, "mask": MASK})
    assert "amax" not in map(name_of, graph.program.graph.nodes)


def test_a_mask_of_the_model_s_own_stays():
    class Causal(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            seen = torch.ones(x.shape[-2], x.shape[-2], dtype=torch.bool).tril()
            return {"y": functional.scaled_dot_product_attention(x, x, x, attn_mask=seen)}

    graph = graph_of_module(Causal(), {"x": X})
    assert "amax" not in map(name_of, graph.program.graph.nodes)


@pytest.mark.parametrize("count", [1, 3])
def test_attentions_of_one_mask_share_what_is_made_of_it(count):
    class Several(nn.Module):
        def forward(self, x: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
            seen = (mask[:, None, None, :] > 0) & torch.ones(6, 6, dtype=torch.bool).tril()
            for _ in range(count):
                x = functional.scaled_dot_product_attention(x, x, x, attn_mask=seen)
            return {"y": x}

    graph = graph_of_module(Several(), {"x": X, "mask": MASK})
    names = [name_of(node) for node in graph.program.graph.nodes]
    assert names.count("amax") == 1
    assert torch.allclose(
        run(graph, {"x": X, "mask": MASK})["y"], Several()(X, MASK)["y"], atol=1e-6
    )
