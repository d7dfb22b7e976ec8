"""ONNX Runtime as a `Backend`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qdx.backends.contract import Proof
from qdx.backends.onnx.external_data import EXTERNAL_DATA

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qdx.backends.capabilities import TimedOperation
    from qdx.backends.contract import KernelExecution, LoweredFiles, Runner
    from qdx.backends.lockstep import Lockstep
    from qdx.exporter.calibrate.ranges import Ranges
    from qdx.exporter.cost.weight_file import StoredTensor
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.graph.ir.site import Site
    from qdx.exporter.plan.resolve.resolution import FloatTypes, ResolvedPlan, SiteResolution
    from qdx.exporter.transforms.placement import Placement
    from qdx.targets.profile import TargetProfile


_NO_COPIES: Final = "session.disable_prepacking"
"""Weights otherwise are laid out anew for each kernel."""


class OnnxRuntimeBackend:
    """Lowers to ONNX with external data and runs on the CPU provider; see `qdx.backends.contract.Backend`."""

    name = "onnxruntime"
    weight_file = EXTERNAL_DATA

    def place(
        self,
        graph: Graph,
        sites: Sequence[Site],
        resolved: ResolvedPlan,
        ranges: Ranges | None,
    ) -> Placement:
        """Quantizers on inputs, and on outputs of convolutions; see `qdx.backends.onnxruntime.place`."""
        from qdx.backends.onnxruntime.place import place

        return place(graph, sites, resolved, ranges)

    def lower(
        self, graph: Graph, float_types: FloatTypes, profile: TargetProfile, folder: Path
    ) -> LoweredFiles:
        """Writes `model.onnx` and `model.onnx_data`."""
        from qdx.backends.onnxruntime.lower import lower

        del profile
        # Whatever they are stored in, floats are computed in float32.
        return lower(graph, float_types.storage, folder)

    def stored_tensors(
        self, resolution: SiteResolution, *, bias_elements: int, float32: bool
    ) -> tuple[StoredTensor, ...]:
        """The parts of the weight, and what its 8-bit kernels want beside."""
        from qdx.backends.onnxruntime.stored_parts import part_sizes_beside
        from qdx.backends.stored_weights import stored_tensors

        del float32  # everything is computed in it
        return stored_tensors(resolution, part_sizes_beside(resolution, bias_elements))

    def open(
        self, folder: Path, options: Mapping[str, str], *, threads: int | None = None
    ) -> Runner:
        """Opens `model.onnx`."""
        from qdx.backends.onnx.session import OnnxRuntimeRunner

        return OnnxRuntimeRunner(folder / "model.onnx", options, threads=threads)

    def try_open(
        self, folder: Path, options: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]
    ) -> tuple[str, ...]:
        """Opens `model.onnx` as it stands: every operation then wants a kernel, and no weight is copied."""
        from qdx.backends.onnx.session import OnnxRuntimeRunner

        del shapes
        unchanged = {**options, **self.unoptimized_options(folder), _NO_COPIES: "1"}
        OnnxRuntimeRunner(folder / "model.onnx", unchanged)
        return ()

    def audit(
        self, folder: Path, options: Mapping[str, str], *, threads: int | None = None
    ) -> tuple[KernelExecution, ...]:
        """Kernels and times from the runtime's own profile of `model.onnx`."""
        from qdx.backends.onnxruntime.audit import audit

        return audit(folder / "model.onnx", options, threads=threads)

    def time_operations(
        self,
        folder: Path,
        options: Mapping[str, str],
        inputs: Mapping[str, NDArray[Any]],
        *,
        runs: int,
        threads: int | None = None,
    ) -> tuple[TimedOperation, ...]:
        """Kernels and times from the runtime's own profile of `model.onnx`, run by run."""
        from qdx.backends.onnxruntime.audit import time_operations

        return time_operations(folder / "model.onnx", options, inputs, runs=runs, threads=threads)

    def open_lockstep(
        self,
        folder: Path,
        options: Mapping[str, str],
        shapes: Mapping[str, tuple[int | None, ...]],
        *,
        threads: int | None = None,
    ) -> Lockstep:
        """Opens the model in segments."""
        from qdx.backends.lockstep import Lockstep
        from qdx.backends.onnx.lockstep import OnnxRuntimeChunks

        return Lockstep(OnnxRuntimeChunks(folder / "model.onnx", options, shapes, threads=threads))

    def saturates(self) -> bool:
        """Found by letting it convolve the greatest numbers."""
        from qdx.backends.onnxruntime.saturation import saturates

        return saturates()

    def unoptimized_options(self, folder: Path) -> dict[str, str]:
        """Every operation then runs as it stands in the file."""
        del folder
        return {"graph_optimization_level": "disable"}

    def proof(self, folders: Sequence[Path]) -> Proof:
        """ONNX Runtime itself runs here."""
        del folders
        return Proof("device-verified", f"ONNX Runtime {version('onnxruntime')}")

    def import_package(self, distribution: str) -> None:
        """Without its telemetry."""
        from qdx.backends.onnx.package import onnxruntime

        del distribution  # they all are imported by one name
        onnxruntime()

    def versions(self) -> dict[str, str]:
        """Versions of torch, onnx-ir, onnxscript and onnxruntime."""
        return {
            package: version(package)
            for package in ("torch", "onnx-ir", "onnxscript", "onnxruntime")
        }
