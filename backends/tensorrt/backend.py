"""TensorRT as a `Backend`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from qdx.backends.contract import Proof
from qdx.backends.tensorrt.engine.record import (
    ENGINE_NAME,
    LAYERS_NAME,
    RECORD_NAME,
    has_engine,
    read_record,
)
from qdx.backends.tensorrt.flavour import ENTERPRISE, RTX, Flavour
from qdx.exporter.errors import InvalidBundle, UsageError, quoted
from qdx.exporter.files import safe_child
from qdx.targets.compute_capabilities import least_of

if TYPE_CHECKING:
    from onnx import ModelProto

    from qdx.backends.capabilities import Built, Finding
    from qdx.backends.compiled import Compiled
    from qdx.backends.contract import KernelExecution, LoweredFiles, Runner
    from qdx.backends.lockstep import Lockstep
    from qdx.backends.onnx.session import Rewrite
    from qdx.backends.tensorrt.engine.record import EngineRecord
    from qdx.backends.tensorrt.recipe import BuildRecipe
    from qdx.exporter.calibrate.ranges import Ranges
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.graph.ir.site import Site
    from qdx.exporter.plan.resolve.resolution import FloatTypes, ResolvedPlan
    from qdx.exporter.transforms.placement import Placement
    from qdx.targets.profile import TargetProfile

_LITERALLY = {"graph_optimization_level": "disable"}
"""ONNX Runtime then executes every quantizer as it stands in the file."""
_NO_COPIES = "session.disable_prepacking"
"""Weights otherwise are laid out anew for each kernel."""
_ENGINE = "engine"
"""Our own option: off opens the file even where there is an engine."""


class TensorRtBackend:
    """Lowers to explicitly quantized, fully typed ONNX; see `qdx.backends.contract.Backend`.

    A folder with an engine runs in TensorRT alone: where that cannot be, it is an error. Where no engine was built,
    or the option `engine` is off, the files run in ONNX Runtime, which computes what they say: all that it leaves
    unproved is NVIDIA's compiler. Engines of TensorRT-RTX are built where no device is, too: there the files run in
    ONNX Runtime as well, unless the option `engine` is on.

    Attributes:
        flavour: TensorRT or TensorRT-RTX.
        name: The flavour's.
        builds_anywhere: Likewise.
    """

    def __init__(self, flavour: Flavour = ENTERPRISE) -> None:
        self.flavour = flavour
        self.name = flavour.name
        self.builds_anywhere = flavour.builds_anywhere

    def place(
        self,
        graph: Graph,
        sites: Sequence[Site],
        resolved: ResolvedPlan,
        ranges: Ranges | None,
    ) -> Placement:
        """Symmetric quantizers on inputs; see `qdx.backends.tensorrt.place`."""
        from qdx.backends.tensorrt.place import place

        return place(graph, sites, resolved, ranges)

    def lower(
        self, graph: Graph, float_types: FloatTypes, profile: TargetProfile, folder: Path
    ) -> LoweredFiles:
        """Writes the model, its weights and the recipe, under the names of the layout."""
        from qdx.backends.tensorrt.lower.lower import lower

        assert not float_types.mixed, "its profiles refuse mixed precision"
        return lower(graph, float_types.storage, profile, folder, self.flavour)

    def open(
        self, folder: Path, options: Mapping[str, str], *, threads: int | None = None
    ) -> Runner:
        """Opens the engine; where none was built, `model.onnx` in ONNX Runtime, every quantizer executed literally.

        So where an engine was built without a device, and none is here; `proof` says that it was not run.
        """
        own = self._run_options(folder, options)
        if own is not None:
            from qdx.backends.tensorrt.engine.run import TensorRtRunner

            return TensorRtRunner(folder, own)
        from qdx.backends.onnx.session import OnnxRuntimeRunner

        model = self._model(folder)
        return OnnxRuntimeRunner(model, _LITERALLY, threads=threads, rewrite=_rewrite(model))

    def try_open(
        self, folder: Path, options: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]
    ) -> tuple[str, ...]:
        """Has NVIDIA's parser read `model.onnx`, and opens it in ONNX Runtime; its rules are checked as it is written."""
        from qdx.backends.onnx.session import OnnxRuntimeRunner
        from qdx.backends.tensorrt.engine.parser_check import check_parsed

        del shapes
        self._run_options(folder, options)
        model = self._model(folder)
        unchecked = check_parsed(model, self.flavour)
        OnnxRuntimeRunner(model, {**_LITERALLY, _NO_COPIES: "1"}, rewrite=_rewrite(model))
        return unchecked

    def audit(
        self, folder: Path, options: Mapping[str, str], *, threads: int | None = None
    ) -> tuple[KernelExecution, ...]:
        """The kernels of the engine; where none was built, the precisions that `model.onnx` asks for.

        An engine that was built without a device, and that none here can run, is audited by its builder's log.
        """
        own = self._run_options(folder, options)
        if own is None and options.get(_ENGINE) != "off" and (built := self.compiled(folder)):
            return built.executions
        if own is not None:
            from qdx.backends.tensorrt.engine.audit import audit_engine

            return audit_engine(folder, own)
        from qdx.backends.tensorrt.emulate.audit import audit_model

        del threads
        return audit_model(self._model(folder))

    def open_lockstep(
        self,
        folder: Path,
        options: Mapping[str, str],
        shapes: Mapping[str, tuple[int | None, ...]],
        *,
        threads: int | None = None,
    ) -> Lockstep:
        """Opens the model in segments, in ONNX Runtime; an engine cannot be cut."""
        from qdx.backends.lockstep import Lockstep
        from qdx.backends.onnx.lockstep import OnnxRuntimeChunks

        del options
        model = self._model(folder)
        return Lockstep(
            OnnxRuntimeChunks(model, _LITERALLY, shapes, threads=threads, rewrite=_rewrite(model))
        )

    def unoptimized_options(self, folder: Path) -> dict[str, str] | None:
        """ONNX Runtime then computes what the file says, which it does anyway where no engine was built."""
        return {_ENGINE: "off"} if has_engine(folder) and self.runs_here() else None

    def notes(
        self, resolved: ResolvedPlan, profile: TargetProfile, exported: Collection[str]
    ) -> tuple[str, ...]:
        """A bundle is finished on another machine, or runs on one; and what is known of models that stand for engines."""
        from qdx.backends.tensorrt.engine.parser_check import parser_note

        del resolved, exported
        if profile.layout.context_file is not None:
            from qdx.backends.tensorrt.engine.ep_context import context_note

            return (context_note(profile.layout.context_file),)
        if self.builds_anywhere:
            return ()
        note = (
            "`qdx build` finishes the bundle on the machine with the GPU; without engines, ONNX Runtime computes what "
            "its files say"
        )
        return tuple(filter(None, (note, parser_note(self.flavour))))

    def check(self, folder: Path, profile: TargetProfile) -> tuple[Finding, ...]:
        """Every rule, for the versions of the recipe and the devices of the target; and what a builder's log shows."""
        from qdx.backends.tensorrt.engine.produce import lint_file
        from qdx.backends.tensorrt.lint import DeviceFacts

        recipe = self._recipe(folder)
        if recipe.context is not None and has_engine(folder):
            from qdx.backends.tensorrt.engine.ep_context import check_context

            check_context(folder, read_record(folder))
        facts = DeviceFacts(
            recipe.version_range, profile.compute_capability, recipe.refit == "any", self.flavour
        )
        found = lint_file(folder / recipe.model, facts)
        if not self.builds_anywhere or not has_engine(folder):
            return found
        from qdx.backends.tensorrt.engine.stored_log import logged_faults

        return (*logged_faults(folder, found), *found)

    def check_build(self, folders: Sequence[Path], device: int) -> dict[str, str]:
        """The recipes first, which need nothing, then the installed version, the device, and every model's rules."""
        from qdx.backends.tensorrt.engine.package import compute_capability, installed_version
        from qdx.backends.tensorrt.engine.produce import check_model
        from qdx.backends.tensorrt.engine.produce_ahead import builder_version

        recipes = {folder: self._recipe(folder) for folder in folders}
        if self.builds_anywhere:
            full, version = builder_version(self.flavour)
        else:
            full, version = installed_version(self.flavour)
            capability = compute_capability(device)
        for folder, recipe in recipes.items():
            least = least_of(recipe.compute_capabilities) if self.builds_anywhere else capability
            check_model(folder / recipe.model, recipe, version, least)
        return {self.name: full}

    def build_engine(self, folder: Path, *, timing_cache: bytes, device: int) -> Built:
        """By the recipe in the folder."""
        from qdx.backends.tensorrt.engine.produce import produce_engine
        from qdx.backends.tensorrt.engine.produce_ahead import produce_ahead

        recipe = self._recipe(folder)
        if not self.builds_anywhere:
            return produce_engine(folder, folder, timing_cache=timing_cache, device=device)
        built = produce_ahead(folder)
        if recipe.context is not None:
            from qdx.backends.tensorrt.engine.ep_context import write_context

            write_context(folder, read_record(folder))
        return built

    def engine_files(self, folder: Path) -> tuple[str, ...]:
        """The engine and its record, what its builder logged of it, and the model of one node that stands for it."""
        if not self.builds_anywhere:
            return (ENGINE_NAME, RECORD_NAME)
        context = self._recipe(folder).context
        named = (ENGINE_NAME, RECORD_NAME, LAYERS_NAME)
        return named if context is None else (*named, context)

    def end_builds(self) -> None:
        """Ends the process that builds."""
        from qdx.backends.tensorrt.engine.produce_ahead import BUILDER

        BUILDER.close()

    def import_package(self, distribution: str) -> None:
        """Imports the flavour's own by its module, which has another name."""
        from importlib import import_module

        own = distribution == self.flavour.distribution
        import_module(self.flavour.module if own else distribution.replace("-", "_"))

    def engine_record(self, folder: Path) -> EngineRecord | None:
        """What `engine.json` holds."""
        return read_record(folder) if has_engine(folder) else None

    def runs_here(self) -> bool:
        """Whether engines are run here, or an error says why not; otherwise ONNX Runtime computes what the files say."""
        from qdx.backends.tensorrt.engine.package import has_device

        return not self.builds_anywhere or has_device()

    def compiled(self, folder: Path) -> Compiled | None:
        """What the log beside the engine says; None where none was built, or its builder is not listened to."""
        if not self.builds_anywhere or not has_engine(folder):
            return None
        from qdx.backends.tensorrt.engine.stored_log import compiled_engine

        return compiled_engine(folder)

    def proof(self, folders: Sequence[Path]) -> Proof:
        """TensorRT executes engines; where one is missing or cannot run here, ONNX Runtime executes the file."""
        built = bool(folders) and all(has_engine(folder) for folder in folders)
        if built and self.runs_here():
            from qdx.backends.tensorrt.engine.package import (
                compute_capability,
                device_name,
                installed_version,
            )

            return Proof(
                "device-verified",
                f"{self.flavour.title} {installed_version(self.flavour)[0]} on {device_name()}",
                compute_capability=compute_capability(),
            )
        from qdx.backends.tensorrt.emulate.executable import has_own_operators
        from qdx.backends.tensorrt.emulate.rounded import has_sixteen_bits
        from qdx.backends.tensorrt.model_file import read_proto

        models = [read_proto(self._model(folder)) for folder in folders]
        literal = "every quantizer as it stands in the file"
        if any(map(has_own_operators, models)):
            literal += ", TensorRT's own operators by their definitions in standard ones"
        if any(map(has_sixteen_bits, models)):
            literal += ", sixteen bits as float32 that is rounded behind each operation"
        computed = f"ONNX Runtime {version('onnxruntime')}, {literal}"
        if built:
            from qdx.backends.tensorrt.engine.stored_log import compiled_engine, compiled_words

            return Proof(
                "engine-built",
                computed,
                "what the engines compute, whose kernels are chosen on the device",
                compiled=compiled_words([compiled_engine(folder) for folder in folders]),
            )
        return Proof(
            "artifact-verified", computed, f"what {self.flavour.title}'s compiler makes of the file"
        )

    def _recipe(self, folder: Path) -> BuildRecipe:
        """The recipe in a folder.

        Raises:
            InvalidBundle: It is missing or malformed, or for the other flavour.
        """
        from qdx.backends.tensorrt.engine.produce import read_recipe

        recipe = read_recipe(folder)
        if recipe.builder is not self.flavour:
            raise InvalidBundle(
                f"{quoted(folder.name)}: its recipe is for {recipe.builder.title}, the bundle's target for "
                f"{self.flavour.title}",
                hint="export again",
            )
        return recipe

    def _model(self, folder: Path) -> Path:
        """The model in a folder that engines are built from, and that ONNX Runtime computes where none runs."""
        return safe_child(folder, self._recipe(folder).model, error=InvalidBundle)

    def _run_options(self, folder: Path, options: Mapping[str, str]) -> dict[str, str] | None:
        """Options of running the folder's engine; None where ONNX Runtime takes its place.

        Raises:
            InvalidBundle: The engine is there without its record, or the other way round.
            UsageError: An option is unknown, or has no such value.
        """
        from qdx.backends.tensorrt.engine.options import run_options

        wanted = options.get(_ENGINE)
        if wanted not in {None, "on", "off"}:
            raise UsageError(f"`{_ENGINE}`: got {quoted(wanted)}, expected on or off")
        own = {name: value for name, value in options.items() if name != _ENGINE}
        run_options(own, self.flavour)  # an option that no engine has is one of nothing else either
        if wanted == "off" or not has_engine(folder):
            return None
        return own if wanted == "on" or self.runs_here() else None

    def versions(self) -> dict[str, str]:
        """Versions of torch, onnx-ir, onnxscript and onnxruntime."""
        return {
            package: version(package)
            for package in ("torch", "onnx-ir", "onnxscript", "onnxruntime")
        }


def rtx_backend() -> TensorRtBackend:
    """The backend of TensorRT-RTX, for the registry."""
    return TensorRtBackend(RTX)


def _rewrite(model: Path) -> Rewrite | None:
    """What makes a model executable in ONNX Runtime; None where it is as it stands.

    Raises:
        InvalidBundle: It cannot be read.
    """
    from qdx.backends.tensorrt.emulate.executable import has_own_operators, make_executable
    from qdx.backends.tensorrt.emulate.rounded import has_sixteen_bits, round_behind_operations
    from qdx.backends.tensorrt.model_file import read_proto

    proto = read_proto(model)
    steps = [
        step
        for needed, step in (
            (has_own_operators, make_executable),
            (has_sixteen_bits, round_behind_operations),
        )
        if needed(proto)
    ]

    def rewrite(read: ModelProto) -> None:
        for step in steps:
            step(read)

    return rewrite if steps else None
