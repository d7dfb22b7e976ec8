"""Rotated graphs on every runtime: the artifact agrees with the graph, and holds each matrix once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from qdx.backends.registry import get_backend
from qdx.exporter.graph.analysis.sites import sites
from qdx.exporter.graph.ir.graph import Graph
from qdx.exporter.plan.resolve.resolution import FloatTypes
from qdx.exporter.plan.schema.scheme import ROTATED_OPERATIONS, Rotate
from qdx.exporter.transforms.insert import insert
from qdx.exporter.transforms.rotation import RotateInputs
from qdx.targets.profile import load_target
from qdx.verification.measure.computed import quantizer_shapes
from qdx.verification.measure.lockstep_runs import compare_in_lockstep
from tests.support.lowering import lower
from tests.support.onnxruntime_quantized import A8, W8, FixedRanges, resolved, weighted
from tests.support.tracing import block_inputs, graph_of

LEAST_DB = 45.0
SLOW = pytest.mark.slow


class Pixels(nn.Module):
    """A convolution behind a nonlinearity, and layers that read its pixels as tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(4, 24, 3, padding=1)
        self.strided = nn.Conv2d(24, 32, 3, stride=2, padding=1)
        self.one = nn.Linear(32, 48)
        self.two = nn.Linear(48, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pixels = self.strided(nn.functional.silu(self.conv_in(x)))
        tokens = self.one(pixels.flatten(2).transpose(1, 2))
        return self.two(nn.functional.gelu(tokens))


def rotated(graph: Graph, first: str) -> Graph:
    wanted = {
        one.key: Rotate(block=8)
        for one in sites(graph)
        if one.op in ROTATED_OPERATIONS and one.weight_shape[1] % 8 == 0 and one.key != first
    }
    rotation = RotateInputs.of(graph, wanted)
    assert rotation is not None
    assert rotation.folded
    assert rotation.folded < wanted.keys()
    return rotation.apply(graph)


def worst_db(graph: Graph, given: dict[str, torch.Tensor], target: str, folder: Path) -> float:
    """Of a graph against its artifact, quantizer by quantizer."""
    backend, profile = get_backend(target), load_target(target)
    ranges: Any = FixedRanges()
    placed = backend.place(graph, sites(graph), resolved(graph, weighted(W8, A8)), ranges)
    made = insert(graph, sites(graph), placed)
    lower(made, FloatTypes("float32"), profile, folder)
    artifact = backend.open_lockstep(folder, profile.options, quantizer_shapes(made), threads=1)
    assert artifact.quantizers
    arrays = {name: tensor.numpy() for name, tensor in given.items()}
    if target == "coreml" and "t" in arrays:
        arrays["t"] = arrays["t"].astype("int32").reshape(1)
    found = compare_in_lockstep(made, given, artifact, arrays, {"y": "y"})
    return found.worst[1]


@pytest.mark.parametrize(
    "target",
    [
        "onnxruntime",
        pytest.param("openvino", marks=SLOW),
        pytest.param("coreml", marks=SLOW),
        pytest.param("tensorrt", marks=SLOW),
        pytest.param("tensorrt-rtx", marks=SLOW),
    ],
)
def test_convolutions_and_layers_in_lockstep(target: str, tmp_path: Path) -> None:
    given = {"x": torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(2))}
    graph = rotated(graph_of(Pixels, given)[0], "conv_in")
    assert worst_db(graph, given, target, tmp_path) >= LEAST_DB


@pytest.mark.slow
@pytest.mark.parametrize("target", ["onnxruntime", "openvino", "coreml", "tensorrt"])
def test_attention_in_lockstep(block: tuple[Graph, nn.Module], target: str, tmp_path: Path) -> None:
    graph = rotated(block[0], "conv_in")
    assert worst_db(graph, block_inputs(), target, tmp_path) >= LEAST_DB
