"""Core ML as a `Backend`."""

from __future__ import annotations

import platform
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qdx.backends.contract import Proof
from qdx.exporter.cost.weight_file import FileLayout

if TYPE_CHECKING:
    from qdx.backends.contract import KernelExecution, LoweredFiles, Runner
    from qdx.backends.lockstep import Lockstep
    from qdx.exporter.calibrate.ranges import Ranges
    from qdx.exporter.cost.weight_file import StoredTensor
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.graph.ir.site import Site
    from qdx.exporter.plan.resolve.resolution import FloatTypes, ResolvedPlan, SiteResolution
    from qdx.exporter.transforms.placement import Placement
    from qdx.targets.profile import TargetProfile


class CoreMlBackend:
    """Lowers to ML program packages; see `qdx.backends.contract.Backend`."""

    name = "coreml"
    weight_file = FileLayout(
        header_bytes=64, entry_bytes=64, multiple_bytes=64, outside_elements=10
    )

    def place(
        self,
        graph: Graph,
        sites: Sequence[Site],
        resolved: ResolvedPlan,
        ranges: Ranges | None,
    ) -> Placement:
        """Quantizers of inputs by tensor, and weights as integers or palettes; see `place`."""
        from qdx.backends.coreml.place import place

        return place(graph, sites, resolved, ranges)

    def lower(
        self, graph: Graph, float_types: FloatTypes, profile: TargetProfile, folder: Path
    ) -> LoweredFiles:
        """Writes `model.mlpackage`."""
        from qdx.backends.coreml.lower.lower import lower

        return lower(graph, float_types, profile, folder)

    def stored_tensors(
        self, resolution: SiteResolution, *, bias_elements: int, float32: bool
    ) -> tuple[StoredTensor, ...]:
        """The parts of the weight, each an entry of `weight.bin`; of a linear low-rank branch biases of zeros too."""
        from qdx.backends.coreml.stored_parts import part_sizes_with_biases
        from qdx.backends.stored_weights import stored_tensors

        del bias_elements
        return stored_tensors(resolution, part_sizes_with_biases(resolution, float32=float32))

    def open(
        self, folder: Path, options: Mapping[str, str], *, threads: int | None = None
    ) -> Runner:
        """Opens `model.mlpackage`."""
        from qdx.backends.coreml.run import CoreMlRunner

        return CoreMlRunner(folder, options, threads=threads)

    def open_lockstep(
        self,
        folder: Path,
        options: Mapping[str, str],
        shapes: Mapping[str, tuple[int | None, ...]],
        *,
        threads: int | None = None,
    ) -> Lockstep:
        """Opens the package in segments, in the interpreter."""
        from qdx.backends.coreml.lockstep import CoreMlChunks
        from qdx.backends.lockstep import Lockstep

        del options  # compute units, which the interpreter has not
        return Lockstep(CoreMlChunks(folder, shapes, threads=threads))

    def audit(
        self, folder: Path, options: Mapping[str, str], *, threads: int | None = None
    ) -> tuple[KernelExecution, ...]:
        """The precisions that the package gives to its operations; see `qdx.backends.coreml.audit`."""
        from qdx.backends.coreml.audit import audit

        del options, threads
        return audit(folder)

    def packages_of(self, artifact: Path) -> tuple[Path, ...]:
        """One package, or the two halves of one."""
        from qdx.backends.coreml.artifact import packages_of

        return packages_of(artifact)

    def notes(
        self, resolved: ResolvedPlan, profile: TargetProfile, exported: Collection[str]
    ) -> tuple[str, ...]:
        """What can never run on the Neural Engine."""
        from qdx.backends.coreml.notes import unit_notes

        return unit_notes(resolved, profile, exported)

    def proof(self, folders: Sequence[Path]) -> Proof:
        """Core ML runs on Apple's systems; elsewhere the interpreter computes what the package says."""
        del folders
        if sys.platform == "darwin":
            return Proof("device-verified", f"Core ML of macOS {platform.mac_ver()[0]}")
        return Proof(
            "artifact-verified",
            "the interpreter of qdx",
            "what Apple's compiler and kernels make of the package",
        )

    def versions(self) -> dict[str, str]:
        """Versions of torch and coremltools."""
        from qdx.backends.coreml.lower.package import versions

        return versions()
