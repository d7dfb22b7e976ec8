"""Opening attention: the same numbers, the same keys, and both runtimes take it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from qdx.exporter.graph.analysis.sites import sites
from qdx.exporter.graph.execute.interpreter import run
from qdx.exporter.graph.ir.graph import Graph
from qdx.exporter.graph.rewrites.open_attention import open_attention
from tests.support.tiny_graphs import graphs_of
from tests.support.tracing import graph_of, sqnr_db


class _Attention(nn.Module):
    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__()
        self.options = options

    def forward(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **mask: torch.Tensor
    ) -> torch.Tensor:
        return nn.functional.scaled_dot_product_attention(q, k, v, mask.get("mask"), **self.options)  # fmt: skip


def _tensors(*, heads: int = 4, mask: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    found = {"q": torch.randn(2, 4, 6, 8, generator=generator)}
    found |= {name: torch.randn(2, heads, 5, 8, generator=generator) for name in "kv"}
    return found if mask is None else {**found, "mask": mask}


def _all_keys(graph: Graph) -> list[str]:
    return [site.key for site in sites(graph) if site.op in {"qk", "pv"}]


@pytest.mark.parametrize(
    ("options", "tensors"),
    [
        ({}, _tensors()),
        ({"scale": 0.3}, _tensors()),
        ({"is_causal": True}, _tensors()),
        ({"enable_gqa": True}, _tensors(heads=2)),
        ({}, _tensors(mask=torch.randn(2, 1, 6, 5, generator=torch.Generator().manual_seed(2)))),
        ({}, _tensors(mask=torch.tensor([True, False, True, True, False])[None, None, None])),
    ],
    ids=["plain", "scale", "causal", "gqa", "float mask", "bool mask"],
)
def test_open_attention_computes_the_same(
    options: dict[str, Any], tensors: dict[str, torch.Tensor]
) -> None:
    graph, _ = graph_of(lambda: _Attention(options), tensors)
    before = str(graph.program.graph)
    opened = open_attention(graph, ["qk"])

    assert str(graph.program.graph) == before
    assert "scaled_dot_product_attention" not in str(opened.program.graph)
    torch.testing.assert_close(
        run(opened, tensors)["y"], run(graph, tensors)["y"], rtol=1e-5, atol=1e-6
    )


def test_causal_attention_of_sizes_that_move() -> None:
    size = torch.export.Dim.AUTO
    moving = {name: {2: size} for name in "qkv"}
    graph, _ = graph_of(lambda: _Attention({"is_causal": True}), _tensors(), dynamic=moving)
    opened = open_attention(graph, _all_keys(graph))
    other = {"q": torch.randn(2, 4, 9, 8), "k": torch.randn(2, 4, 7, 8), "v": torch.randn(2, 4, 7, 8)}  # fmt: skip

    torch.testing.assert_close(
        run(opened, other)["y"], run(graph, other)["y"], rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    ("family", "where"), [("sd", "unet.forward"), ("sd3", "transformer.forward"), ("sd", "text_encoder.forward")]
)  # fmt: skip
def test_sites_stay_the_same_and_point_to_the_products(family: str, where: str) -> None:
    graph = graphs_of(family)[where]
    opened = open_attention(graph, _all_keys(graph))
    before, after = sites(graph), sites(opened)

    assert {(s.key, s.role, s.stage, s.macs, s.fqn) for s in before} == {
        (s.key, s.role, s.stage, s.macs, s.fqn) for s in after
    }
    nodes = {node.name: node for node in opened.program.graph.nodes}
    for site in after:
        if site.op in {"qk", "pv"}:
            assert "matmul" in str(nodes[site.node].target)
            assert list(site.ports.values()) == [0, 1]
            assert nodes[site.node].meta["nn_module_stack"]


def test_only_the_chosen_attention_is_opened() -> None:
    graph = graphs_of("sd")["unet.forward"]
    key = _all_keys(graph)[1]
    opened = {site.key: site for site in sites(open_attention(graph, [key, "conv_in"]))}

    assert opened[key].ports == {"probs": 0, "value": 1}
    assert sum("probs" in site.ports for site in opened.values()) == 1
    assert open_attention(graph, ["conv_in"]) is graph


@pytest.fixture(scope="module")
def opened_unet() -> tuple[Graph, dict[str, torch.Tensor], torch.Tensor]:
    """A UNet whose attention is open, inputs, and what the original makes of them."""
    graph = graphs_of("sd")["unet.forward"]
    generator = torch.Generator().manual_seed(0)
    inputs = {
        spec.name: torch.randn([int(size) for size in spec.shape], generator=generator).to(
            getattr(torch, spec.dtype)
        )
        for spec in graph.inputs
    }
    (expected,) = run(graph, inputs).values()
    opened = open_attention(graph, _all_keys(graph))
    return replace(opened, outputs=(replace(opened.outputs[0], name="y"),)), inputs, expected


def test_onnxruntime_takes_open_attention(
    opened_unet: tuple[Graph, dict[str, torch.Tensor], torch.Tensor], tmp_path: Path
) -> None:
    from qdx.backends.onnx.session import OnnxRuntimeRunner
    from qdx.backends.onnxruntime.lower import lower

    graph, inputs, expected = opened_unet
    lower(graph, "float32", tmp_path)
    (found,) = OnnxRuntimeRunner(tmp_path / "model.onnx", {}, threads=1)(_arrays(inputs)).values()

    assert sqnr_db(expected, found) > 80


def test_openvino_takes_open_attention(
    opened_unet: tuple[Graph, dict[str, torch.Tensor], torch.Tensor], tmp_path: Path
) -> None:
    from qdx.backends.openvino.lower import lower
    from qdx.backends.openvino.run import OpenVinoRunner

    graph, inputs, expected = opened_unet
    lower(graph, "float32", tmp_path)
    options = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
    run = OpenVinoRunner(tmp_path / "openvino_model.xml", options, threads=1)
    (found,) = run(_arrays(inputs)).values()

    assert sqnr_db(expected, found) > 80


def _arrays(inputs: dict[str, torch.Tensor]) -> dict[str, Any]:
    return {name: tensor.numpy() for name, tensor in inputs.items()}
