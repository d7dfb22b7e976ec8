"""OpenVINO as a `Backend`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qdx.backends.contract import LoweredFiles, Runner
    from qdx.exporter.graph.graph import Graph
    from qdx.targets.profile import TargetProfile


class OpenVinoBackend:
    """Lowers to the IR and runs on the CPU device; see `qdx.backends.contract.Backend`."""

    name = "openvino"

    def lower(
        self, graph: Graph, storage_dtype: str, profile: TargetProfile, folder: Path
    ) -> LoweredFiles:
        """Writes `openvino_model.xml` and `openvino_model.bin`."""
        from qdx.backends.layout import graph_in_layout
        from qdx.backends.openvino.lower import lower

        return lower(graph_in_layout(graph, profile.layout), storage_dtype, folder)

    def open(
        self, folder: Path, options: Mapping[str, str], *, threads: int | None = None
    ) -> Runner:
        """Opens `openvino_model.xml`."""
        from qdx.backends.openvino.run import OpenVinoRunner

        return OpenVinoRunner(folder / "openvino_model.xml", options, threads=threads)

    def versions(self) -> dict[str, str]:
        """Versions of torch, onnx-ir, onnxscript and openvino."""
        return {
            package: version(package) for package in ("torch", "onnx-ir", "onnxscript", "openvino")
        }
