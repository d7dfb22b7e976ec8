"""Lowering as the export does it: the face of the target's layout, what its data refuses, then the backend."""

from __future__ import annotations

from pathlib import Path

from qdx.backends.contract import LoweredFiles
from qdx.backends.layout import graph_in_layout
from qdx.backends.limits import check_request
from qdx.backends.registry import get_backend
from qdx.exporter.graph.ir.graph import Graph
from qdx.exporter.plan.resolve.resolution import FloatTypes
from qdx.targets.profile import TargetProfile


def lower(
    graph: Graph, float_types: FloatTypes, profile: TargetProfile, folder: Path
) -> LoweredFiles:
    """Writes a graph into a folder that exists."""
    face = graph_in_layout(graph, profile.layout)
    check_request(face, float_types.storage, profile)
    return get_backend(profile.runtime).lower(face, float_types, profile, folder)
