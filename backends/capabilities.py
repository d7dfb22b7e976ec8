"""What some backends do beside the contract, each thing a protocol of its own.

Who wants one asks with `isinstance`, and where it is not there goes on without it, or raises what `lacks` makes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

from qdx.exporter.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

    from qdx.backends.contract import Backend, LoweredFiles
    from qdx.backends.lockstep import Lockstep
    from qdx.exporter.cost.weight_file import FileLayout, StoredTensor
    from qdx.exporter.plan.resolve.resolution import ResolvedPlan, SiteResolution
    from qdx.exporter.plan.schema.plan import Plan
    from qdx.targets.profile import TargetProfile

__all__ = [
    "AddsHelpers",
    "ArtifactQuantizer",
    "Builds",
    "Built",
    "Checks",
    "CompilesLate",
    "EngineRecord",
    "Finding",
    "ImportsPackages",
    "JoinsPackages",
    "Notes",
    "OpensInLockstep",
    "QuantizesArtifacts",
    "Saturates",
    "StoresWeights",
    "SwitchesOptimizationsOff",
    "TimedOperation",
    "TimesOperations",
    "Tries",
    "lacks",
]


@runtime_checkable
class OpensInLockstep(Protocol):
    """Opens artifacts cut open at their quantizers, so that each is fed values from outside."""

    def open_lockstep(
        self,
        folder: Path,
        options: Mapping[str, str],
        shapes: Mapping[str, tuple[int | None, ...]],
        *,
        threads: int | None = None,
    ) -> Lockstep:
        """Opens a folder that `lower` wrote from a quantized graph.

        Args:
            folder: Holds the runtime's files.
            options: The runtime's own option names.
            shapes: Shape of each quantizer's input, by the names of `qdx.backends.lockstep.quantizers`;
                None stands for a size that the graph leaves open.
            threads: Processor threads, the runtime's default where None.

        Raises:
            InvalidBundle: The runtime cannot read the files.
            UnknownQuantizer: They have a quantizer that the graph has not.
        """


@runtime_checkable
class AddsHelpers(Protocol):
    """Adds files that the runtime's own pipelines want beside the artifacts."""

    def add_helpers(
        self, tokenizers: Mapping[str, PreTrainedTokenizerBase], bundle: Path
    ) -> tuple[str, ...]:
        """Adds them to a bundle.

        Args:
            tokenizers: The pipeline's, by component.
            bundle: The bundle's folder; every component's own folder is there.

        Returns:
            What could not be added and why, a line each.

        Raises:
            StorageError: The disk refused.
        """


@runtime_checkable
class Notes(Protocol):
    """Tells what users of the runtime do not expect of a bundle that is right."""

    def notes(
        self, resolved: ResolvedPlan, profile: TargetProfile, exported: Collection[str]
    ) -> tuple[str, ...]:
        """What an export says beside its result, a line each.

        Args:
            resolved: What becomes of the plan.
            profile: The target.
            exported: Names of the components that are exported.
        """


@runtime_checkable
class ImportsPackages(Protocol):
    """Imports its packages in a way of its own, such as without what they would report over the network."""

    def import_package(self, distribution: str) -> None:
        """Imports one by the name under which it is installed; raises whatever the import raises."""


@runtime_checkable
class Saturates(Protocol):
    """Has 8-bit kernels whose sums may saturate, see `qdx.backends.saturation`."""

    def saturates(self) -> bool:
        """Whether they do on this machine."""


@runtime_checkable
class SwitchesOptimizationsOff(Protocol):
    """Can run artifacts without the runtime's own optimizations."""

    def unoptimized_options(self, folder: Path) -> dict[str, str] | None:
        """Options that turn them off; None where what runs the folder here optimizes nothing.

        Raises:
            InvalidBundle: The folder is not one that `lower` wrote.
        """


@runtime_checkable
class StoresWeights(Protocol):
    """Knows to the byte what its files hold for an operation.

    Attributes:
        weight_file: What the file of weights puts around tensors.
    """

    weight_file: FileLayout

    def stored_tensors(
        self, resolution: SiteResolution, *, bias_elements: int, float32: bool
    ) -> tuple[StoredTensor, ...]:
        """What files hold for a site's weight, and what quantizing it adds.

        Args:
            resolution: What becomes of the site.
            bias_elements: Of its bias; 0 without. The bias itself is not counted: it is there in any case.
            float32: Whether the operation stays in float32 in a component that is computed in sixteen bits.
        """


@dataclass(frozen=True)
class TimedOperation:
    """One operation of an opened artifact, as its runtime carried it out again and again.

    Attributes:
        name: The runtime's own name of it.
        kind: The kernel.
        sites: Keys of the sites that it computes; none for operations that no plan addresses.
        seconds: Of each run, in the order of the runs.
    """

    name: str
    kind: str
    sites: tuple[str, ...]
    seconds: tuple[float, ...]


@runtime_checkable
class TimesOperations(Protocol):
    """Tells the time of each operation of a run, by its runtime's own clock."""

    def time_operations(
        self,
        folder: Path,
        options: Mapping[str, str],
        inputs: Mapping[str, NDArray[Any]],
        *,
        runs: int,
        threads: int | None = None,
    ) -> tuple[TimedOperation, ...]:
        """Runs a folder that `lower` wrote.

        Args:
            folder: Holds the runtime's files.
            options: The runtime's own option names.
            inputs: Of the call, named and typed as the artifact's.
            runs: That count, behind some in which the runtime lays out its weights.
            threads: Processor threads, the runtime's default where None.

        Returns:
            Every operation that is carried out, in order, each with as many times as there are runs.

        Raises:
            InvalidBundle: The runtime cannot read the files.
            UsageError: The inputs are not the artifact's.
        """


@runtime_checkable
class Tries(Protocol):
    """Finds out whether an artifact opens, with less than opening it to run takes.

    Who asks does so in a process of its own, which a runtime may end; nothing that this needs imports torch.
    """

    def try_open(
        self,
        folder: Path,
        options: Mapping[str, str],
        shapes: Mapping[str, tuple[int, ...]],
    ) -> tuple[str, ...]:
        """Opens a folder that `lower` wrote, as far as the runtime can refuse it.

        Args:
            folder: Holds the runtime's files.
            options: The runtime's own option names.
            shapes: Sizes of a usual call, by the artifact's inputs; empty where all are fixed, or are not known.

        Returns:
            What could not be checked here, a line each.

        Raises:
            InvalidBundle: The runtime cannot open it.
            TargetRefusal: It refuses operations of it, each by its node.
            UsageError: An option is unknown to the runtime.
        """


@runtime_checkable
class CompilesLate(Protocol):
    """Takes most of its memory at the first call of an artifact, and keeps it.

    Attributes:
        compiled_ratio: Bytes that it takes for each byte of a quantized artifact's files; weights in floating point
            stay pages of their files.
    """

    compiled_ratio: float


@runtime_checkable
class JoinsPackages(Protocol):
    """Runs several packages of one component, one after the other, where an application takes it cut."""

    def packages_of(self, artifact: Path) -> tuple[Path, ...]:
        """The packages that a component runs, in order.

        Raises:
            InvalidBundle: There is none, or there are too many, or a part alone.
        """


class Finding(Protocol):
    """One thing that a model breaks of the rules of its runtime."""

    @property
    def severity(self) -> str:
        """`error` or `warning`."""

    @property
    def rule(self) -> str:
        """Name of the rule."""

    @property
    def node(self) -> str:
        """Where."""

    @property
    def message(self) -> str:
        """What was found, and what is expected."""

    @property
    def hint(self) -> str | None:
        """What to change."""


@runtime_checkable
class Checks(Protocol):
    """Holds artifacts against the rules of its runtime, which need not be installed for that."""

    def check(self, folder: Path, profile: TargetProfile) -> tuple[Finding, ...]:
        """What a folder that `lower` wrote breaks of the rules of its target, errors before warnings.

        Raises:
            InvalidBundle: The files are malformed.
        """


class EngineRecord(Protocol):
    """What is on record of an engine that was built."""

    @property
    def sha256(self) -> str:
        """Digest of the engine."""

    @property
    def build_s(self) -> float:
        """Seconds that the build took."""

    def facts(self) -> dict[str, Any]:
        """What tables show, in their order: the version that built it, the device, `size_bytes`; plain JSON data."""


@dataclass(frozen=True)
class Built:
    """What building one engine gave, beside the files.

    Attributes:
        record: What is on record of it.
        timing_cache: For the next build on this version and device.
        warnings: What the runtime warned of.
    """

    record: EngineRecord
    timing_cache: bytes
    warnings: tuple[str, ...]


@runtime_checkable
class Builds(Protocol):
    """Builds engines from artifacts.

    Attributes:
        builds_anywhere: Whether any machine builds them, which is then done at export; otherwise it is the machine that
            runs them. Such engines are for no device at hand, and no times of its kernels are measured.
    """

    builds_anywhere: bool

    def engine_files(self, folder: Path) -> tuple[str, ...]:
        """Names of the files that a build adds to a folder that `lower` wrote.

        Raises:
            InvalidBundle: The files are malformed.
        """

    def check_build(self, folders: Sequence[Path], device: int) -> dict[str, str]:
        """Checks everything that a build needs, before the first spends minutes.

        Args:
            folders: Folders that `lower` wrote; none to ask for the packages alone.
            device: Number of the device.

        Returns:
            Versions of the packages that build, by package.

        Raises:
            InvalidBundle: The files are malformed.
            RuntimeMissing: The runtime or the device is missing.
            TargetRefusal: A model breaks a rule of this version or device.
        """

    def build_engine(self, folder: Path, *, timing_cache: bytes, device: int) -> Built:
        """Builds the engine of a folder for a device at hand and writes it there.

        Args:
            folder: A folder that `lower` wrote.
            timing_cache: Of an earlier build on this version and device; empty to measure anew.
            device: Number of the device.

        Raises:
            InvalidBundle, RuntimeMissing, TargetRefusal: As for `check_build`.
            StorageError: The disk refused.
            UsageError: The timing cache is for another version or device.
        """

    def end_builds(self) -> None:
        """Gives back what building engines has taken and keeps, such as memory."""

    def engine_record(self, folder: Path) -> EngineRecord | None:
        """What is on record of the folder's engine; None where none is built.

        Raises:
            InvalidBundle: The engine or its record is there without the other, or the record is malformed.
        """


class ArtifactQuantizer(Protocol):
    """Somebody else's quantizer, which takes a float artifact where qdx takes a graph.

    Attributes:
        name: Its name in words.
        calls_most: Calls of a graph with which it calibrates at most; 0 where it needs none.
    """

    name: str
    calls_most: int

    def takes(self, component: str) -> bool:
        """Whether it quantizes a component."""

    def asked(self, resolved: ResolvedPlan) -> ResolvedPlan:
        """The resolution with what it is asked for in place of the rules' float types: what an audit expects."""

    def quantize(
        self, floats: LoweredFiles, calls: Sequence[Mapping[str, NDArray[Any]]], folder: Path
    ) -> LoweredFiles:
        """Quantizes one artifact.

        Args:
            floats: What `lower` wrote, elsewhere.
            calls: Inputs of the component, named as the artifact names them.
            folder: Takes the quantized files.

        Raises:
            InvalidBundle: The float artifact cannot be read.
            StorageError: The disk refused.
            TargetRefusal: It refuses the model or its settings.
        """

    def check_installed(self) -> None:
        """Raises `RuntimeMissing` where its package is not installed."""

    def versions(self) -> dict[str, str]:
        """Versions of the packages that quantize."""


@runtime_checkable
class QuantizesArtifacts(Protocol):
    """Has artifacts that quantizers of others quantize."""

    def artifact_quantizer(self, plan: Plan) -> ArtifactQuantizer:
        """The one that a plan names, and that the target's profile lists."""


_ABSENT: Final[Mapping[type, str]] = {
    Builds: "does not build engines",
    Checks: "has no rules to check models against",
    OpensInLockstep: "does not open artifacts cut at their quantizers",
    QuantizesArtifacts: "has no quantizers of others",
}


def lacks(
    backend: Backend, capability: type, what: str = "", *, hint: str | None = None
) -> UsageError:
    """The error that says what a backend does not do.

    Args:
        backend: It lacks the capability.
        capability: A protocol of this module that somebody cannot go on without.
        what: What somebody wanted it for, such as a bundle.
        hint: The next step.
    """
    before = f"{what}: " if what else ""
    return UsageError(f"{before}the backend `{backend.name}` {_ABSENT[capability]}", hint=hint)
