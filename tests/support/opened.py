"""A graph lowered to a target and opened there."""

from __future__ import annotations

from pathlib import Path

from qdx.backends.contract import Runner
from qdx.backends.registry import get_backend
from qdx.exporter.graph.ir.graph import Graph
from qdx.exporter.plan.resolve.resolution import FloatTypes
from qdx.targets.profile import load_target
from tests.support.lowering import lower

TARGETS = ("onnxruntime", "openvino", "tensorrt", "coreml")


def opened(graph: Graph, target: str, folder: Path) -> Runner:
    """The graph in float32, lowered into a folder that exists."""
    profile = load_target(target)
    lower(graph, FloatTypes("float32"), profile, folder)
    return get_backend(profile.runtime).open(folder, dict(profile.options))
