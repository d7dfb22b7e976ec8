"""A pipeline folder, read and run dry: every component call of the export, ready to be traced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Any

import torch

from qdx.bundle.companions import helper_paths
from qdx.exporter.capture.call_files import load_files
from qdx.exporter.capture.capture import Capture, Shapes, capture
from qdx.exporter.capture.component_weights import open_weights
from qdx.exporter.capture.deltas import merged
from qdx.exporter.capture.folder import INDEX_FILE, PipelineFolder
from qdx.exporter.capture.lockstep import same_computation
from qdx.exporter.capture.media import call_parameters
from qdx.exporter.capture.model import Model, read_model
from qdx.exporter.capture.other_sizes import (
    UNITS,
    OtherRun,
    has_scale,
    run_off_grid,
    run_on_grid,
    scale_of,
)
from qdx.exporter.capture.sizes import open_sizes
from qdx.exporter.capture.skeleton import Skeleton, build_skeleton
from qdx.exporter.capture.trace import trace
from qdx.exporter.capture.upcasts import upcast_components
from qdx.exporter.errors import InvalidModel, TargetRefusal, UsageError, quoted
from qdx.exporter.graph.ir.safetensors_file import Checkpoint
from qdx.exporter.graph.ir.weight_files import variants_in
from qdx.exporter.graph.ir.weights import LazyWeights, bind_weights, load_buffers
from qdx.exporter.progress import SILENT
from qdx.source.same_model import LIVE_WEIGHTS, digest_of

if TYPE_CHECKING:
    from qdx.cache.store import Store
    from qdx.exporter.capture.calls import CallRecord
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.progress import Progress
    from qdx.targets.profile import TargetProfile


@dataclass(frozen=True)
class TracedPipeline:
    """A pipeline whose calls are known.

    Attributes:
        folder: Where it comes from.
        skeleton: The pipeline without weights; components that no call uses count as omitted.
        checkpoints: The stored tensors by component.
        weights: The parameters by component, unread.
        captured: Every call of the dry run.
        chosen: The calls that are wanted, by `component.method`.
        left_out: Components that are called and not wanted.
        cache: Where digests of files are kept; None keeps none.
    """

    folder: PipelineFolder
    skeleton: Skeleton
    checkpoints: dict[str, Checkpoint] = field(repr=False)
    weights: dict[str, LazyWeights] = field(repr=False)
    captured: Capture = field(repr=False)
    chosen: dict[str, CallRecord]
    left_out: tuple[str, ...]
    cache: Store | None = field(default=None, repr=False)
    _runs: dict[int, OtherRun | None] = field(default_factory=dict, repr=False)
    _units: dict[str, int | None] = field(default_factory=dict, repr=False)
    _unproven: list[str] = field(default_factory=list, repr=False)

    def graph(
        self, where: str, profile: TargetProfile | None = None, *, float16: bool = False
    ) -> Graph:
        """Traces one call.

        Args:
            where: `unet.forward`.
            profile: The target whose ecosystem decides dtypes and ranks of the inputs; None leaves them
                as the pipeline passes them, and all sizes fixed.
            float16: Whether the target computes it in float16; see `trace`.

        Raises:
            TargetRefusal: The component cannot be traced.
        """
        record = self.captured.calls[where]
        weights = self.weights[record.component]
        if profile is None:
            return trace(self.skeleton, record, weights)
        fitted = _fit_to_layout(record, profile)
        moving = self.captured.moving.get(where)
        if not moving:
            return trace(self.skeleton, fitted, weights, float16=float16)
        graph = self._open_graph(where, fitted, profile, float16=float16)
        usual = _fit_to_layout(self.captured.usual[where], profile)
        return replace(graph, sizes=open_sizes(graph.inputs, _shapes(usual), _shapes(fitted)))

    @property
    def notes(self) -> tuple[str, ...]:
        """What stands in for arguments, and which sizes graphs are not right for."""
        unit = self.unit_pixels
        limits = [
            f"`{where}`: nothing shows that its graph is right at sizes other than the call's; verify those that you need"
            for where in dict.fromkeys(self._unproven)
        ]
        if unit is not None:
            limits.append(
                f"height and width must be multiples of {unit} pixels: the model computes otherwise at others"
            )
        return (*self.captured.notes, *self._rounded(), *limits)

    def _rounded(self) -> tuple[str, ...]:
        """Says so where the pipeline computes another size than the call asks for."""
        sizes = self.sizes
        if sizes is None:
            return ()
        asked = {name: self.call.get(name) for name in ("height", "width")}
        if all(value is None or value == sizes[name] for name, value in asked.items()):
            return ()
        words = "x".join(str(asked[name] or sizes[name]) for name in ("width", "height"))
        computed = f"{sizes['width']}x{sizes['height']}"
        note = (
            f"{words} pixels were requested, and the pipeline computes {computed}: it rounds sizes; "
            f"give height {sizes['height']} and width {sizes['width']} to say what it does"
        )
        return (note,)

    @property
    def sizes(self) -> dict[str, int] | None:
        """Height, width and unit of the pictures, in pixels; None where height and width are not arguments."""
        size = self.captured.size_pixels
        names = call_parameters(self.skeleton.pipeline).keys()
        if (
            size is None
            or not {"height", "width"} <= names
            or not has_scale(self.skeleton.pipeline)
        ):
            return None
        unit = self.unit_pixels
        return {"height": size[0], "width": size[1], **({} if unit is None else {"unit": unit})}

    @property
    def unit_pixels(self) -> int | None:
        """What height and width must be multiples of, for all graphs of open sizes that were traced; None for any."""
        known = [unit for unit in self._units.values() if unit is not None]
        return max(known, default=None)

    def _open_graph(
        self, where: str, fitted: CallRecord, profile: TargetProfile, *, float16: bool
    ) -> Graph:
        """The graph that is right at most sizes: traced where they do not divide, and proven where they do.

        Args:
            where: `unet.forward`.
            fitted: Its call at sizes that divide.
            profile: The target's.
            float16: As for `graph`.

        Raises:
            TargetRefusal: The component cannot be traced.
        """
        weights, proof, taken = self.weights[fitted.component], None, None
        # Where sizes are fixed, what is open differs within the call.
        units = UNITS if self.captured.records else ()
        for unit, longer in product(units, (True, False)):
            run = self._off_grid(unit, longer=longer)
            if run is None or where not in run.calls:
                continue
            off = _fit_to_layout(run.calls[where], profile)
            dividing = self._on_grid()
            if dividing is None or where not in dividing.calls:
                break
            on = _fit_to_layout(dividing.calls[where], profile)
            if _shapes(off) == _shapes(on):
                break  # the size of the picture does not reach it
            taken = taken or run.unit_pixels
            proof = proof or trace(self.skeleton, on, weights, float16=float16)
            try:
                graph = trace(
                    self.skeleton, off, weights, moving=run.moving.get(where), float16=float16
                )
            except TargetRefusal:
                continue
            if same_computation(graph, proof):
                self._units[where] = None if run.unit_pixels == taken else run.unit_pixels
                return graph
        graph = trace(
            self.skeleton, fitted, weights, moving=self.captured.moving[where], float16=float16
        )
        if proof is not None:
            grid = UNITS[-1] * scale_of(self.skeleton.pipeline)
            own = self.captured.size_pixels or ()
            if same_computation(graph, proof) and not any(size % grid for size in own):
                self._units[where] = grid
            else:
                self._unproven.append(where)
        return graph

    def _on_grid(self) -> OtherRun | None:
        """The run at a size that divides, made once."""
        if 0 not in self._runs:
            captured = self.captured
            self._runs[0] = run_on_grid(
                self.skeleton, self.call, captured.records, captured.size_pixels
            )
        return self._runs[0]

    def _off_grid(self, unit: int, *, longer: bool) -> OtherRun | None:
        """The run at odd multiples of a unit, with longer prompts or the call's own, made once."""
        key = -unit if longer else unit
        if key not in self._runs:
            captured = self.captured
            self._runs[key] = run_off_grid(
                self.skeleton,
                self.call,
                captured.records,
                captured.size_pixels,
                unit,
                longer=longer,
            )
        return self._runs[key]

    @property
    def call(self) -> dict[str, Any]:
        """The user's call, its files opened, with what stands in for arguments that it lacks."""
        return dict(self.captured.call)

    @property
    def upcast(self) -> frozenset[str]:
        """Names of the components whose configuration says that float16 overflows in them."""
        return upcast_components(self.folder)

    @cached_property
    def mapped_weights(self) -> Mapping[str, LazyWeights]:
        """The parameters by component as pages of their files, for graphs that run again and again."""
        found = {}
        for name, module in self.skeleton.modules.items():
            if name in self.weights:
                checkpoint = open_weights(self.folder.components[name], mapped=True)
                weights = bind_weights(module, checkpoint, component=name)
                found[name] = merged(weights, self.folder.layers_adapted(name))
        return found

    @cached_property
    def identity(self) -> Mapping[str, str]:
        """What tells this model from others: the digests of its files, and of the adapters merged into it."""
        adapters = self.folder.adapters
        return {**self.source_digests, **({} if adapters is None else adapters.digests)}

    @cached_property
    def source_digests(self) -> Mapping[str, str]:
        """SHA-256 of every file that was read, by relative path; each is hashed once."""
        root = self.folder.path
        files = {root / INDEX_FILE}
        for name, component in self.folder.components.items():
            for part in component.members or (component,):
                files |= set(helper_paths(part)) if part.path.is_dir() else set()
            if component.held is not None:
                files.add(component.path / LIVE_WEIGHTS)
            elif name in self.checkpoints:
                files |= set(self.checkpoints[name].files)
        names = sorted(path.relative_to(root).as_posix() for path in files)
        return {name: digest_of(self.folder, name, self.cache) for name in names}


def trace_pipeline(
    model: Model,
    call: dict[str, Any],
    *,
    components: Sequence[str] | None = None,
    shapes: Shapes = "static",
    variant: str | None = None,
    opens_files: bool = True,
    progress: Progress = SILENT,
    cache: Store | None = None,
) -> TracedPipeline:
    """Reads a pipeline folder and runs the pipeline dry.

    Args:
        model: The folder, what was read of it, or a pipeline in memory.
        call: The pipeline call that decides shapes and options.
        components: Only these are wanted; None wants all.
        shapes: Whether sizes that move between two calls are open.
        variant: Of the weights, such as `fp16`; see `read_pipeline_folder`.
        opens_files: Whether files that the call names are opened; not where a bundle wrote the call.
        progress: Shows the steps.
        cache: Where digests of files are kept between runs; None computes them.

    Raises:
        InvalidModel: The folder is not a pipeline that can be read.
        UsageError: The call is wrong, or a wanted component is not called.
        TargetRefusal: The pipeline cannot be run dry.
    """
    folder = _folder(model, variant, progress)
    with progress.task("reading the pipeline"):
        skeleton, checkpoints, weights, unreadable = _read(folder)
    if opens_files:
        call = load_files(call, call_parameters(skeleton.pipeline))
    with progress.task("dry run"):
        captured = capture(skeleton, call, shapes=shapes)
    for record in captured.calls.values():
        if record.component in unreadable:
            raise unreadable[record.component]
    chosen, left_out = _choose(captured, components)
    _check_adapters(folder, left_out)
    skeleton = _without_unused(skeleton, captured)
    return TracedPipeline(folder, skeleton, checkpoints, weights, captured, chosen, left_out, cache)


def _folder(model: Model, variant: str | None, progress: Progress) -> PipelineFolder:
    """The model, read; says which components lack the variant that was asked for."""
    folder = read_model(model, variant=variant)
    if variant is not None and folder.live is None:
        for name, component in folder.components.items():
            found = variants_in(component.path)
            if found and variant not in found:
                progress.say(
                    f"`{name}` has no weights of variant {variant}: its unmarked ones are read"
                )
    return folder


def _read(
    folder: PipelineFolder,
) -> tuple[Skeleton, dict[str, Checkpoint], dict[str, LazyWeights], dict[str, InvalidModel]]:
    """The pipeline without weights, and the weights of its components, checked and unread.

    What is wrong with the weights of optional components comes beside them: a call may do without these.
    """
    skeleton = build_skeleton(folder)
    optional = frozenset(getattr(skeleton.pipeline, "_optional_components", ()))
    checkpoints: dict[str, Checkpoint] = {}
    weights: dict[str, LazyWeights] = {}
    unreadable: dict[str, InvalidModel] = {}
    for name, module in skeleton.modules.items():
        try:
            checkpoint = open_weights(folder.components[name])
            bound = bind_weights(module, checkpoint, component=name)
            weights[name] = merged(bound, folder.layers_adapted(name))
            load_buffers(module, checkpoint)
        except InvalidModel as error:
            if name not in optional:
                raise
            weights.pop(name, None)
            unreadable[name] = error
        else:
            checkpoints[name] = checkpoint
    return skeleton, checkpoints, weights, unreadable


def _choose(
    captured: Capture, components: Sequence[str] | None
) -> tuple[dict[str, CallRecord], tuple[str, ...]]:
    """The calls to export, and the components that the user leaves to PyTorch."""
    called = tuple(dict.fromkeys(record.component for record in captured.calls.values()))
    unknown = sorted(set(components or ()) - set(called))
    if unknown:
        raise UsageError(
            f"--components: `{unknown[0]}` is not called by the pipeline",
            hint=f"it calls {', '.join(called)}",
        )
    chosen = {
        where: record
        for where, record in captured.calls.items()
        if components is None or record.component in components
    }
    exported = {record.component for record in chosen.values()}
    return chosen, tuple(name for name in called if name not in exported)


def _check_adapters(folder: PipelineFolder, left_out: Sequence[str]) -> None:
    """Refuses adapters for components that are not exported: those run in PyTorch with the weights of the model."""
    for component in left_out:
        if folder.layers_adapted(component):
            raise UsageError(
                f"--lora: an adapter changes {quoted(component)}, which --components leaves out of the export",
                hint="export the component too, or give an adapter without weights for it",
            )


def _without_unused(skeleton: Skeleton, captured: Capture) -> Skeleton:
    """The skeleton with the components that this call never uses counted as omitted."""
    called = {record.component for record in captured.calls.values()}
    unused = {
        name: "the exported pipeline call never uses it"
        for name in skeleton.modules
        if name not in called
    }
    return replace(skeleton, omitted={**skeleton.omitted, **unused})


def _shapes(record: CallRecord) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in record.tensors().items()}


def _fit_to_layout(record: CallRecord, profile: TargetProfile) -> CallRecord:
    """The call with dtypes and ranks as the target's ecosystem passes them (a timestep, mostly)."""
    fitted: dict[str, torch.Tensor] = {}
    for name, tensor in record.tensors().items():
        port = profile.layout.input(
            record.component, record.method, name, str(tensor.dtype).removeprefix("torch.")
        )
        shape = tuple(tensor.shape)
        if port.rank == 0 and tensor.dim() == 1 and name not in record.varied:
            shape = ()
        elif port.rank == 1 and tensor.dim() == 0:
            shape = (1,)
        # A mask of another type would mean something else to the model; the lowering converts it.
        dtype = tensor.dtype if tensor.dtype == torch.bool else getattr(torch, port.dtype)
        fitted[name] = torch.empty(shape, dtype=dtype, device="meta")
    return record.with_tensors(fitted)
