"""What every backend answers: how a graph becomes files, and how the files run.

What only some backends do is in `qdx.backends.capabilities`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from qdx.exporter.calibrate.ranges import Ranges
    from qdx.exporter.graph.ir.graph import Graph, TensorSpec
    from qdx.exporter.graph.ir.site import Site
    from qdx.exporter.plan.resolve.resolution import FloatTypes, ResolvedPlan
    from qdx.exporter.transforms.placement import Placement
    from qdx.targets.profile import TargetProfile


@dataclass(frozen=True)
class LoweredFiles:
    """The files that one component became.

    Attributes:
        model: The file that the runtime opens.
        others: Files it refers to, such as external data.
        notes: What is right and may still run slower, or less precisely, than it could; a line each.
    """

    model: Path
    others: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()


Way = Literal["native", "weights_in_product", "weights_in_memory", "float"]
"""In which way an operation was compiled: all factors in low precision; weights dequantized inside the product;
weights dequantized to memory first; all in float."""


@dataclass(frozen=True)
class KernelExecution:
    """One operation of an opened artifact as its runtime carried it out.

    Attributes:
        name: The runtime's own name of it.
        kind: The kernel, such as `QLinearConv` or `brgemm_avx512_i8`.
        precision: What it multiplies or reads: `int8`, `float32` and the like. An operation that
            decompresses its weights and then multiplies floats has `float32`.
        sites: Keys of the sites that it computes; several where the runtime fused them, none for
            operations that no plan addresses.
        time_share: Part of the measured time that it took, 0..1; None where it was not measured.
        time_s: The same in seconds.
        compiled: In which way it was compiled, of operations with sites, where a compiler's log says so and nothing
            was executed; None where it was executed, or nothing is said of it.
    """

    name: str
    kind: str
    precision: str
    sites: tuple[str, ...] = ()
    time_share: float | None = None
    time_s: float | None = None
    compiled: Way | None = None


@dataclass(frozen=True)
class Proof:
    """How much of an artifact's way to its device a run on this machine proves.

    Attributes:
        status: `device-verified` where the target's own runtime executes the artifact here, `engine-built` where its
            compiler has built the engine and something else computes what the artifact says, and `artifact-verified`
            where nothing was built, or the runtime executes it on another device.
        executed_by: What computes it.
        unproved: What is left unproved, as a sentence's end; empty for a device.
        caution: What this machine computes worse than others that the artifact is for; empty for nothing.
        compute_capability: Major and minor, of the NVIDIA device that executes it; None where none does.
        compiled: What it was compiled for and by what, of a built engine that was not run; empty for nothing.
    """

    status: Literal["device-verified", "engine-built", "artifact-verified"]
    executed_by: str
    unproved: str = ""
    caution: str = ""
    compute_capability: tuple[int, int] | None = None
    compiled: str = ""

    def __str__(self) -> str:
        """`artifact-verified: executed by ONNX Runtime 1.32.0; unproved: the compiler's kernels`."""
        left = f"; unproved: {self.unproved}" if self.unproved else ""
        caution = f"; caution: {self.caution}" if self.caution else ""
        return f"{self.status}: {self.computed}{left}{caution}"

    @property
    def computed(self) -> str:
        """`executed by X`; of an engine that was not run, what it was compiled for and what computed the values."""
        if self.compiled:
            return f"{self.compiled}; values computed by {self.executed_by}"
        return f"executed by {self.executed_by}"


class Runner(Protocol):
    """An opened artifact: named arrays in, named arrays out."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """In the artifact's order; dynamic dimensions are symbols."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """In the artifact's order."""

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Runs once; the returned arrays belong to the caller.

        Raises:
            UsageError: A name, dtype or shape is not the artifact's.
        """


class Backend(Protocol):
    """One runtime.

    Attributes:
        name: Of the runtime, as targets name it.
    """

    name: str

    def place(
        self,
        graph: Graph,
        sites: Sequence[Site],
        resolved: ResolvedPlan,
        ranges: Ranges | None,
    ) -> Placement:
        """Chooses where quantizers stand in one graph, by the runtime's own rules.

        Args:
            graph: With attention opened where its products are quantized.
            sites: Of that graph.
            resolved: What becomes of each site; what the target can do is in it already.
            ranges: Recorded ranges; None where no scale comes from calibration.

        Raises:
            InvalidInput: The range of a quantized activation was not recorded, or its scale is not representable in
                the type that the component computes in.
        """

    def lower(
        self, graph: Graph, float_types: FloatTypes, profile: TargetProfile, folder: Path
    ) -> LoweredFiles:
        """Writes the component into `folder`, which exists.

        Args:
            graph: With quantizers where they were placed. Its specs are the artifact's face: the caller has given
                them the layout's names, dtypes and ranks, see `qdx.backends.layout`; where the program differs,
                the lowering adapts it.
            float_types: Types of what is not quantized; mixed only where the profile does not refuse that.
            profile: The target; what it refuses by its data is refused before, see `qdx.backends.limits`.
            folder: Takes the files.

        Raises:
            StorageError: The disk refused.
            TargetRefusal: The runtime cannot do what the graph asks.
        """

    def open(
        self, folder: Path, options: Mapping[str, str], *, threads: int | None = None
    ) -> Runner:
        """Opens a folder that `lower` wrote, with the profile's pinned options.

        Args:
            folder: Holds the runtime's files.
            options: The runtime's own option names; numerics are pinned by them.
            threads: Processor threads, the runtime's default where None.

        Raises:
            InvalidBundle: The runtime cannot read the files.
            UsageError: An option is unknown to the runtime; one that compiles at the first call may say so then.
        """

    def audit(
        self, folder: Path, options: Mapping[str, str], *, threads: int | None = None
    ) -> tuple[KernelExecution, ...]:
        """What the runtime really executes for a folder that `lower` wrote, with its share of the time.

        Raises:
            InvalidBundle: The runtime cannot read the files.
        """

    def proof(self, folders: Sequence[Path]) -> Proof:
        """What a run of artifacts proves on this machine.

        Args:
            folders: Folders that `lower` wrote, and that run together.

        Raises:
            InvalidBundle: The runtime cannot read the files.
        """

    def versions(self) -> dict[str, str]:
        """Versions of the packages that lower and run."""


def check_inputs(specs: tuple[TensorSpec, ...], inputs: Mapping[str, NDArray[np.generic]]) -> None:
    """Compares arrays with an artifact's inputs before the runtime sees them.

    Raises:
        UsageError: Names, dtypes or shapes differ; every difference is listed.
    """
    from qdx.exporter.errors import UsageError

    expected = {spec.name: spec for spec in specs}
    problems = [f"`{name}`: missing" for name in expected if name not in inputs]
    problems += [f"`{name}`: not an input" for name in inputs if name not in expected]
    for name, spec in expected.items():
        if name in inputs:
            problems += _differences(spec, inputs[name])
    if problems:
        raise UsageError(
            "inputs do not match the artifact: " + "; ".join(problems),
            hint="expected " + ", ".join(f"{s.name} {s.dtype}{list(s.shape)}" for s in specs),
        )


def _differences(spec: TensorSpec, array: NDArray[np.generic]) -> list[str]:
    found = []
    if str(array.dtype) != spec.dtype:
        found.append(f"`{spec.name}`: got dtype {array.dtype}, expected {spec.dtype}")
    matches = len(array.shape) == len(spec.shape) and all(
        isinstance(wanted, str) or got == wanted
        for got, wanted in zip(array.shape, spec.shape, strict=True)
    )
    if not matches:
        found.append(f"`{spec.name}`: got shape {list(array.shape)}, expected {list(spec.shape)}")
    return found
