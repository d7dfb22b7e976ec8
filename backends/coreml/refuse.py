"""What Core ML cannot do."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coremltools.converters.mil.mil import Program

    from qdx.exporter.graph.graph import Graph
    from qdx.targets.profile import TargetProfile


def check_request(graph: Graph, storage_dtype: str, profile: TargetProfile) -> None:
    """Later."""


def check_program(program: Program, graph: Graph, profile: TargetProfile) -> None:
    """Later."""
