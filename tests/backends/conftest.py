"""Graphs that several tests share: each costs seconds to trace and lower."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from qdx.exporter.graph.ir.graph import Graph
from tests.support.tracing import Block, block_inputs, graph_of


@pytest.fixture(scope="session")
def block() -> tuple[Graph, nn.Module]:
    return graph_of(Block, block_inputs())


@pytest.fixture(scope="session")
def dynamic_block() -> tuple[Graph, nn.Module]:
    size = torch.export.Dim.AUTO
    moving: dict[str, Any] = {"x": {0: size, 2: size, 3: size}, "t": None, "context": {0: size}}
    return graph_of(Block, block_inputs(batch=3), dynamic=moving)


@pytest.fixture(scope="session")
def onnx_folder(block: tuple[Graph, nn.Module], tmp_path_factory: pytest.TempPathFactory) -> Path:
    from qdx.backends.onnxruntime.lower import lower

    folder = tmp_path_factory.mktemp("onnx")
    lower(block[0], "float32", folder)
    return folder


@pytest.fixture(scope="session")
def openvino_folder(
    block: tuple[Graph, nn.Module], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    from qdx.backends.openvino.lower import lower

    folder = tmp_path_factory.mktemp("openvino")
    lower(block[0], "float32", folder)
    return folder
