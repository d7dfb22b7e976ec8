"""The main job: a pipeline folder, a plan and a target become a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import qdx
from qdx.backends.layout import graph_in_layout
from qdx.backends.registry import get_backend
from qdx.bundle.writer import BundleWriter
from qdx.exporter.capture.arguments import load_images
from qdx.exporter.capture.capture import Capture, Shapes, capture
from qdx.exporter.capture.folder import INDEX_FILE, PipelineFolder, read_pipeline_folder
from qdx.exporter.capture.recorded_call import record_call
from qdx.exporter.capture.skeleton import Skeleton, build_skeleton
from qdx.exporter.capture.trace import trace
from qdx.exporter.errors import UsageError
from qdx.exporter.files import dump_json, sha256_file
from qdx.exporter.graph.safetensors_file import Checkpoint, open_checkpoint
from qdx.exporter.graph.weights import Weights, bind_weights, load_buffers, persistent_buffers
from qdx.exporter.plan.load import load_plan
from qdx.exporter.plan.resolve import resolve
from qdx.exporter.progress import SILENT
from qdx.helper_files import copy_helpers, helper_paths, make_folder, portable, write_file
from qdx.runtime.pipeline import BUFFERS_FILE
from qdx.targets.profile import load_target
from qdx.timesteps import with_exact_timesteps

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from qdx.backends.contract import Backend
    from qdx.exporter.capture.calls import CallRecord
    from qdx.exporter.plan.resolution import ResolvedPlan
    from qdx.exporter.progress import Progress
    from qdx.targets.profile import TargetProfile


@dataclass(frozen=True)
class ExportResult:
    """What an export made.

    Attributes:
        bundle: The finished bundle.
        methods: `component.method` of every graph in it, in order.
        size_bytes: All files together.
        omitted: Components that no bundle carries, each with the reason.
        left_out: Components that the user left out.
        notes: What the bundle lacks that some of the target's readers want, and how to get it.
    """

    bundle: Path
    methods: tuple[str, ...]
    size_bytes: int
    omitted: dict[str, str]
    left_out: tuple[str, ...]
    notes: tuple[str, ...] = ()


def export(
    model: Path | str,
    *,
    target: str,
    plan: str | Path,
    output: Path | str,
    call: dict[str, Any] | None = None,
    components: Sequence[str] | None = None,
    shapes: Shapes = "static",
    force: bool = False,
    progress: Progress = SILENT,
) -> ExportResult:
    """Traces a pipeline and lowers it to a target, all or nothing.

    Args:
        model: A diffusers pipeline folder.
        target: A target's name, such as `openvino`.
        plan: A preset's name or a plan file.
        output: The bundle's folder; it must not exist unless `force`.
        call: Arguments of the pipeline call that decides shapes and options: plain JSON, and images or
            their paths, of which the bundle keeps the size alone. None takes the pipeline's defaults.
        components: Export only these; None exports all.
        shapes: `static` fixes the call's sizes, `dynamic` leaves open what moves between two calls.
        force: Replace an existing bundle, atomically.
        progress: Shows the steps.

    Raises:
        UsageError, InvalidPlan, InvalidModel, TargetRefusal, RuntimeMissing, StorageError: See their texts.
    """
    output = Path(output)
    BundleWriter.check(output, force=force)
    call = load_images(call or {})
    recorded = record_call(call)
    profile = load_target(target)
    backend = get_backend(profile.runtime)
    intent = load_plan(plan)
    folder = read_pipeline_folder(model)
    with progress.task("reading the pipeline"):
        skeleton, checkpoints, weights = _read(folder)
    resolved = resolve(intent, skeleton.modules, profile)
    with progress.task("dry run"):
        captured = capture(skeleton, call, shapes=shapes)
    chosen, left_out = _choose(captured, components)
    skeleton = _without_unused(skeleton, captured)
    profile, timestep_notes = with_exact_timesteps(profile, skeleton, captured)
    job = _Job(skeleton, weights, captured, resolved, profile, backend)
    with BundleWriter(output, force=force) as writer:
        entries = _lower_all(job, chosen, writer.staging, progress)
        helpers = copy_helpers(folder, skeleton, writer.staging)
        helper_notes = backend.add_helpers(
            _tokenizers(skeleton, helpers, writer.staging), writer.staging
        )
        with progress.task("writing the bundle"):
            writer.commit({
                "schema": "qdx.bundle/1",
                "qdx": qdx.__version__,
                "target": {"name": profile.name, "runtime": profile.runtime, "options": dict(profile.options)},
                "plan": intent.to_json(),
                "resolution": resolved.to_json(),
                "source": {"pipeline_class": folder.pipeline_class, "files": _source_digests(folder, checkpoints)},
                "call": recorded,
                "shapes": shapes,
                "components": entries,
                "omitted": skeleton.omitted,
                "left_out": list(left_out),
                "versions": {**backend.versions(), "torch": torch.__version__},
            })  # fmt: skip
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    return ExportResult(
        output, tuple(chosen), size, skeleton.omitted, left_out, (*timestep_notes, *helper_notes)
    )


@dataclass(frozen=True)
class _Job:
    """What lowering needs to know of an export."""

    skeleton: Skeleton
    weights: dict[str, Weights]
    captured: Capture
    resolved: ResolvedPlan
    profile: TargetProfile
    backend: Backend


def _read(folder: PipelineFolder) -> tuple[Skeleton, dict[str, Checkpoint], dict[str, Weights]]:
    """The pipeline without weights, and the weights of its components, checked and unread."""
    skeleton = build_skeleton(folder)
    checkpoints = {name: open_checkpoint(folder.components[name].path) for name in skeleton.modules}
    weights = {
        name: bind_weights(module, checkpoints[name], component=name)
        for name, module in skeleton.modules.items()
    }
    for name, module in skeleton.modules.items():
        load_buffers(module, checkpoints[name])
    return skeleton, checkpoints, weights


def _choose(
    captured: Capture, components: Sequence[str] | None
) -> tuple[dict[str, CallRecord], tuple[str, ...]]:
    """The calls to export, and the components that the user leaves to PyTorch."""
    called = tuple(dict.fromkeys(record.component for record in captured.calls.values()))
    unknown = sorted(set(components or ()) - set(called))
    if unknown:
        raise UsageError(f"--components: `{unknown[0]}` is not called by the pipeline",
                         hint=f"it calls {', '.join(called)}")  # fmt: skip
    chosen = {
        where: record
        for where, record in captured.calls.items()
        if components is None or record.component in components
    }
    exported = {record.component for record in chosen.values()}
    return chosen, tuple(name for name in called if name not in exported)


def _without_unused(skeleton: Skeleton, captured: Capture) -> Skeleton:
    """The skeleton with the components that this call never uses counted as omitted."""
    called = {record.component for record in captured.calls.values()}
    unused = {
        name: "the exported pipeline call never uses it"
        for name in skeleton.modules
        if name not in called
    }
    return replace(skeleton, omitted={**skeleton.omitted, **unused})


def _lower_all(
    job: _Job, chosen: dict[str, CallRecord], staging: Path, progress: Progress
) -> dict[str, Any]:
    """Traces and lowers every chosen call; returns the manifest's `components`."""
    entries: dict[str, Any] = {}
    with progress.task("lowering", len(chosen)) as task:
        for record in chosen.values():
            component = job.skeleton.folder.components[record.component]
            entry = entries.setdefault(
                record.component,
                {"library": component.library, "class": component.class_name, "methods": {}},
            )
            entry["methods"][record.key] = _lower(job, record, staging)
            task.advance(1)
    return entries


def _lower(job: _Job, record: CallRecord, staging: Path) -> dict[str, Any]:
    """Traces and lowers one call into its folder; returns the manifest's entry of the method."""
    name, layout = record.component, job.profile.layout
    fitted = _fit_to_layout(record, job.profile)
    graph = trace(
        job.skeleton, fitted, job.weights[name], moving=job.captured.moving.get(record.where)
    )
    relative = layout.folder(name, record.key)
    folder = staging / relative
    make_folder(folder)
    job.backend.lower(graph, job.resolved.storage_dtype(name), job.profile, folder)
    write_file(
        folder / "config.json", dump_json(portable(job.skeleton.folder.components[name].config))
    )
    _write_buffers(job.skeleton, name, folder)
    face = graph_in_layout(graph, layout)
    return {
        "folder": relative,
        "inputs": [
            {
                "argument": traced.name,
                "name": port.name,
                "dtype": port.dtype,
                "shape": list(port.shape),
            }
            for traced, port in zip(graph.inputs, face.inputs, strict=True)
        ],
        "outputs": [
            {
                "field": traced.name,
                "name": port.name,
                "dtype": port.dtype,
                "shape": list(port.shape),
            }
            for traced, port in zip(graph.outputs, face.outputs, strict=True)
        ],
        "constants": record.constants(),
    }


def _fit_to_layout(record: CallRecord, profile: TargetProfile) -> CallRecord:
    """The call with dtypes and ranks as the target's ecosystem passes them (a timestep, mostly)."""
    fitted: dict[str, torch.Tensor] = {}
    for name, tensor in record.tensors().items():
        port = profile.layout.input(
            record.component, record.method, name, str(tensor.dtype).removeprefix("torch.")
        )
        shape = tuple(tensor.shape)
        if port.rank == 0 and tensor.dim() == 1:
            shape = ()
        elif port.rank == 1 and tensor.dim() == 0:
            shape = (1,)
        fitted[name] = torch.empty(shape, dtype=getattr(torch, port.dtype), device="meta")
    return record.with_tensors(fitted)


def _tokenizers(
    skeleton: Skeleton, helpers: Sequence[str], staging: Path
) -> dict[str, PreTrainedTokenizerBase]:
    """The bundle's tokenizers by component, opened afresh: a pipeline call changes how one pads and cuts."""
    from transformers import PreTrainedTokenizerBase

    kinds = {name: type(skeleton.pipeline.components[name]) for name in helpers}
    return {
        name: kind.from_pretrained(str(staging / name), local_files_only=True)
        for name, kind in kinds.items()
        if issubclass(kind, PreTrainedTokenizerBase)
    }


def _source_digests(folder: PipelineFolder, checkpoints: dict[str, Checkpoint]) -> dict[str, str]:
    """SHA-256 of every file that the export read, by relative path."""
    files = [folder.path / INDEX_FILE, *(path for c in checkpoints.values() for path in c.files)]
    for component in folder.components.values():
        files += helper_paths(component)
    return {
        path.relative_to(folder.path).as_posix(): sha256_file(path) for path in sorted(set(files))
    }


def _write_buffers(skeleton: Skeleton, component: str, folder: Path) -> None:
    """Stored buffers, which the pipeline's Python may read (latent means), beside the artifact."""
    buffers = persistent_buffers(skeleton.modules[component])
    if buffers:
        from safetensors.torch import save

        write_file(
            folder / BUFFERS_FILE,
            save({name: value.contiguous() for name, value in buffers.items()}),
        )
