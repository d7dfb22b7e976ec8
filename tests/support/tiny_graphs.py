"""Graphs of the tiny families, traced once per test session."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from qdx.exporter.capture.capture import Shapes, capture
from qdx.exporter.capture.folder import read_pipeline_folder
from qdx.exporter.capture.skeleton import build_skeleton
from qdx.exporter.capture.trace import trace
from qdx.exporter.graph.ir.graph import Graph
from qdx.exporter.graph.ir.safetensors_file import open_checkpoint
from qdx.exporter.graph.ir.weights import bind_weights, load_buffers
from tests.support.tiny import FAMILIES, build

_FOLDER = tempfile.TemporaryDirectory()


@cache
def graphs_of(family: str, shapes: Shapes = "static", *, float16: bool = False) -> dict[str, Graph]:
    """Every graph of a family's pipeline by `component.method`; with `float16` as they are for that."""
    folder = read_pipeline_folder(
        build(family, Path(_FOLDER.name) / f"{family}-{shapes}-{float16}")
    )
    skeleton = build_skeleton(folder)
    captured = capture(skeleton, FAMILIES[family].arguments(), shapes=shapes)
    found = {}
    for where, record in captured.calls.items():
        checkpoint = open_checkpoint(folder.components[record.component].path)
        module = skeleton.modules[record.component]
        load_buffers(module, checkpoint)
        weights = bind_weights(module, checkpoint, component=record.component)
        moving = captured.moving.get(where)
        found[where] = trace(skeleton, record, weights, moving=moving, float16=float16)
    return found
