"""TensorRT as a `Backend`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from qdx.backends.contract import Proof

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from qdx.backends.contract import KernelExecution, LoweredFiles, Runner
    from qdx.backends.lockstep import Lockstep
    from qdx.exporter.calibrate.ranges import Ranges
    from qdx.exporter.graph.graph import Graph
    from qdx.exporter.graph.site import Site
    from qdx.exporter.plan.resolution import ResolvedPlan
    from qdx.exporter.quantize.placement import Placement
    from qdx.targets.profile import TargetProfile

_LITERALLY = {"graph_optimization_level": "disable"}
"""ONNX Runtime then executes every quantizer as it stands in the file."""


class TensorRtBackend:
    """Lowers to explicitly quantized, fully typed ONNX; see `qdx.backends.contract.Backend`.

    Where no engine was built, the files run in ONNX Runtime, which computes what they say: all that
    it leaves unproved is NVIDIA's compiler.
    """

    name = "tensorrt"

    def place(
        self,
        graph: Graph,
        sites: Sequence[Site],
        resolved: ResolvedPlan,
        ranges: Ranges | None,
        profile: TargetProfile,
    ) -> Placement:
        """Symmetric quantizers on inputs; see `qdx.backends.tensorrt.place`."""
        from qdx.backends.tensorrt.place import place

        return place(graph, sites, resolved, ranges, profile)

    def lower(
        self, graph: Graph, storage_dtype: str, profile: TargetProfile, folder: Path
    ) -> LoweredFiles:
        """Writes `model.onnx` and `model.onnx_data`."""
        from qdx.backends.layout import graph_in_layout
        from qdx.backends.tensorrt.lower import lower

        return lower(graph_in_layout(graph, profile.layout), storage_dtype, profile, folder)

    def add_helpers(
        self, tokenizers: Mapping[str, PreTrainedTokenizerBase], bundle: Path
    ) -> tuple[str, ...]:
        """Adds nothing: the bundle's tokenizers are read as they are."""
        del tokenizers, bundle
        return ()

    def open(
        self, folder: Path, options: Mapping[str, str], *, threads: int | None = None
    ) -> Runner:
        """Opens `model.onnx` in ONNX Runtime, every quantizer executed literally."""
        from qdx.backends.onnx.session import OnnxRuntimeRunner
        from qdx.backends.tensorrt.lower import MODEL_FILE

        return OnnxRuntimeRunner(folder / MODEL_FILE, {**options, **_LITERALLY}, threads=threads)

    def audit(
        self, folder: Path, options: Mapping[str, str], *, threads: int | None = None
    ) -> tuple[KernelExecution, ...]:
        """The precisions that `model.onnx` asks for; see `qdx.backends.tensorrt.audit`."""
        from qdx.backends.tensorrt.audit import audit_model
        from qdx.backends.tensorrt.lower import MODEL_FILE

        del options, threads
        return audit_model(folder / MODEL_FILE)

    def open_lockstep(
        self,
        folder: Path,
        options: Mapping[str, str],
        shapes: Mapping[str, tuple[int | None, ...]],
        *,
        threads: int | None = None,
    ) -> Lockstep:
        """Opens the model in segments, in ONNX Runtime."""
        from qdx.backends.onnx.lockstep import OnnxRuntimeLockstep
        from qdx.backends.tensorrt.lower import MODEL_FILE

        return OnnxRuntimeLockstep(
            folder / MODEL_FILE, {**options, **_LITERALLY}, shapes, threads=threads
        )

    def proof(self) -> Proof:
        """Without an engine, ONNX Runtime executes the file."""
        return Proof(
            "artifact-verified",
            f"ONNX Runtime {version('onnxruntime')}, every quantizer as it stands in the file",
            "what TensorRT's compiler makes of the file",
        )

    def versions(self) -> dict[str, str]:
        """Versions of torch, onnx-ir, onnxscript and onnxruntime."""
        return {
            package: version(package)
            for package in ("torch", "onnx-ir", "onnxscript", "onnxruntime")
        }
