"""OpenVINO as a `Backend`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qdx.backends.contract import Proof
from qdx.backends.openvino.tokenizers import PACKAGE as TOKENIZERS_PACKAGE
from qdx.backends.openvino.tokenizers import add_tokenizers
from qdx.exporter.cost.weight_file import FileLayout

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

    from qdx.backends.capabilities import TimedOperation
    from qdx.backends.contract import KernelExecution, LoweredFiles, Runner
    from qdx.backends.lockstep import Lockstep
    from qdx.backends.openvino.nncf.quantizer import NncfQuantizer
    from qdx.exporter.calibrate.ranges import Ranges
    from qdx.exporter.cost.weight_file import StoredTensor
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.graph.ir.site import Site
    from qdx.exporter.plan.resolve.resolution import FloatTypes, ResolvedPlan, SiteResolution
    from qdx.exporter.plan.schema.plan import Plan
    from qdx.exporter.transforms.placement import Placement
    from qdx.targets.profile import TargetProfile


class OpenVinoBackend:
    """Lowers to the IR and runs on the CPU device; see `qdx.backends.contract.Backend`."""

    name = "openvino"
    compiled_ratio = 3.0
    """Measured: Stable Diffusion 1.5 and XL."""
    weight_file = FileLayout()

    def place(
        self,
        graph: Graph,
        sites: Sequence[Site],
        resolved: ResolvedPlan,
        ranges: Ranges | None,
    ) -> Placement:
        """Quantizers on inputs only; see `qdx.backends.openvino.place`."""
        from qdx.backends.openvino.place import place

        return place(graph, sites, resolved, ranges)

    def lower(
        self, graph: Graph, float_types: FloatTypes, profile: TargetProfile, folder: Path
    ) -> LoweredFiles:
        """Writes `openvino_model.xml` and `openvino_model.bin`."""
        from qdx.backends.openvino.lower import lower

        del profile
        # Whatever they are stored in, floats are computed in float32.
        return lower(graph, float_types.storage, folder)

    def add_helpers(
        self, tokenizers: Mapping[str, PreTrainedTokenizerBase], bundle: Path
    ) -> tuple[str, ...]:
        """Adds `openvino_tokenizer.xml` and `.bin`, which OpenVINO GenAI reads, to each tokenizer."""
        return add_tokenizers(tokenizers, bundle)

    def stored_tensors(
        self, resolution: SiteResolution, *, bias_elements: int, float32: bool
    ) -> tuple[StoredTensor, ...]:
        """The parts of the weight, one behind the other."""
        from qdx.backends.stored_weights import part_sizes, stored_tensors

        del bias_elements, float32
        return stored_tensors(resolution, part_sizes(resolution))

    def open(
        self, folder: Path, options: Mapping[str, str], *, threads: int | None = None
    ) -> Runner:
        """Opens `openvino_model.xml`."""
        from qdx.backends.openvino.run import OpenVinoRunner

        return OpenVinoRunner(folder / "openvino_model.xml", options, threads=threads)

    def try_open(
        self, folder: Path, options: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]
    ) -> tuple[str, ...]:
        """Compiles `openvino_model.xml`; weights are laid out for its kernels at the first call alone."""
        from qdx.backends.openvino.run import OpenVinoRunner

        OpenVinoRunner(folder / "openvino_model.xml", options).compile(shapes)
        return ()

    def audit(
        self, folder: Path, options: Mapping[str, str], *, threads: int | None = None
    ) -> tuple[KernelExecution, ...]:
        """Kernels of the compiled model; see `qdx.backends.openvino.audit`."""
        from qdx.backends.openvino.audit import audit

        return audit(folder / "openvino_model.xml", options, threads=threads)

    def time_operations(
        self,
        folder: Path,
        options: Mapping[str, str],
        inputs: Mapping[str, NDArray[Any]],
        *,
        runs: int,
        threads: int | None = None,
    ) -> tuple[TimedOperation, ...]:
        """Kernels of the compiled model and their times, run by run."""
        from qdx.backends.openvino.audit import time_operations

        return time_operations(
            folder / "openvino_model.xml", options, inputs, runs=runs, threads=threads
        )

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
        from qdx.backends.openvino.lockstep import OpenVinoChunks

        return Lockstep(
            OpenVinoChunks(folder / "openvino_model.xml", options, shapes, threads=threads)
        )

    def saturates(self) -> bool:
        """Found by letting it convolve the greatest numbers."""
        from qdx.backends.openvino.saturation import saturates

        return saturates()

    def artifact_quantizer(self, plan: Plan) -> NncfQuantizer:
        """NNCF, with the plan's settings."""
        from qdx.backends.openvino.nncf.quantizer import NncfQuantizer

        assert plan.nncf is not None, "the plan's quantizer is `nncf`"
        return NncfQuantizer(plan.nncf)

    def proof(self, folders: Sequence[Path]) -> Proof:
        """OpenVINO itself runs here."""
        del folders
        return Proof("device-verified", f"OpenVINO {version('openvino')}")

    def import_package(self, distribution: str) -> None:
        """Without its telemetry."""
        from qdx.backends.openvino.package import imported

        imported(distribution.replace("-", "_"))

    def versions(self) -> dict[str, str]:
        """Versions of torch, onnx-ir, onnxscript, openvino, and openvino-tokenizers if installed."""
        packages = ["torch", "onnx-ir", "onnxscript", "openvino"]
        if find_spec(TOKENIZERS_PACKAGE) is not None:
            packages.append("openvino-tokenizers")
        return {package: version(package) for package in packages}
