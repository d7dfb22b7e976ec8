"""Every chosen call of a pipeline becomes an artifact in the bundle, and an entry of its manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from qdx.backends.layout import graph_in_layout
from qdx.backends.limits import check_request
from qdx.bundle.companions import (
    CONFIG_FILE,
    make_folder,
    portable,
    write_buffers,
    write_file,
    write_values,
)
from qdx.bundle.recipes import write_recipe
from qdx.compile.notes import large_notes
from qdx.compile.opening import check_opens
from qdx.compile.recipe import choose_recipe
from qdx.exporter.calibrate.magnitudes import large_ports
from qdx.exporter.capture.known_values import as_values
from qdx.exporter.files import dump_json
from qdx.exporter.graph.rewrites.adapter_inputs import with_adapter_inputs
from qdx.exporter.transforms.recipe import quantized_graph
from qdx.exporter.transforms.time_embedding import TimeTable
from qdx.source.planned import in_float16

if TYPE_CHECKING:
    from qdx.backends.capabilities import ArtifactQuantizer
    from qdx.backends.contract import Backend, LoweredFiles
    from qdx.calibration.calls import Arrays
    from qdx.compile.application import Packages
    from qdx.compile.lora_ready import LoraReady
    from qdx.exporter.calibrate.ranges import Ranges
    from qdx.exporter.capture.calls import CallRecord
    from qdx.exporter.graph.ir.adapters import AdaptedLayer
    from qdx.exporter.graph.ir.graph import Graph, TensorSpec
    from qdx.exporter.plan.resolve.resolution import FloatTypes
    from qdx.exporter.progress import Progress
    from qdx.exporter.transforms.transform import Given, Learner
    from qdx.source.pipeline import TracedPipeline
    from qdx.source.planned import PlannedGraphs
    from qdx.source.schedule import MethodSchedule
    from qdx.targets.profile import TargetProfile
    from qdx.tune.tuner import Tuner

__all__ = ["Job", "lower_all"]


@dataclass(frozen=True)
class Job:
    """What lowering needs to know of an export.

    Attributes:
        source: The pipeline.
        planned: Its graphs, and what the plan becomes of them.
        ranges: What calibration recorded; None where nothing comes from it.
        schedules: When the pipeline calls graphs of which a table of the time embedding is wanted.
        profile: The target.
        backend: The target's.
        packages: The layout of an application; None for the target's own.
        quantizer: Takes float artifacts; None where the rules quantize graphs.
        calls: With which it calibrates, by `component.method`.
        lora: What takes adapters at run time; None for nothing.
        given: Weights that another tool has quantized; None for none.
        learner: Learns to round, where the plan asks for that.
        tuner: Lets quantized graphs learn, likewise.
    """

    source: TracedPipeline
    planned: PlannedGraphs
    ranges: Ranges | None
    schedules: Mapping[str, MethodSchedule]
    profile: TargetProfile
    backend: Backend
    packages: Packages | None = None
    quantizer: ArtifactQuantizer | None = None
    calls: Mapping[str, Sequence[Arrays]] = field(default_factory=dict)
    lora: LoraReady | None = None
    given: Given | None = None
    learner: Learner | None = None
    tuner: Tuner | None = None


def lower_all(
    job: Job, staging: Path, progress: Progress
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Traces and lowers every chosen call.

    Returns:
        The manifest's `components`, and the backend's notes.

    Raises:
        StorageError: The disk refused.
        TargetRefusal: The target, or the layout, cannot do what is asked.
    """
    entries: dict[str, Any] = {}
    notes: list[str] = []
    with progress.task("lowering", len(job.source.chosen)) as task:
        for record in job.source.chosen.values():
            component = job.source.folder.components[record.component]
            entry = entries.setdefault(
                record.component,
                {"library": component.library, "class": component.class_name, "methods": {}},
            )
            entry["methods"][record.key], own = _lower(job, record, staging)
            notes += own
            task.advance(1)
    return entries, tuple(notes)


def _lower(job: Job, record: CallRecord, staging: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Traces and lowers one call into its folder; returns the manifest's entry of the method, and notes."""
    name, layout = record.component, job.profile.layout
    graph = job.planned.graphs.get(record.where) or job.source.graph(
        record.where, job.profile, float16=name in in_float16(job.planned.resolved.components)
    )
    schedule = job.schedules.get(record.where)
    floats, recipe = choose_recipe(
        graph, job.planned.resolved, job.ranges, job.backend, schedule, job.given, job.learner,
        job.tuner,
    )  # fmt: skip
    table = None if recipe is None else recipe.find(TimeTable)
    relative = layout.folder(name, record.key)
    folder = staging / relative
    make_folder(folder)
    float_types = job.planned.resolved.float_types(name)
    lowered = floats if recipe is None else quantized_graph(floats, recipe)
    large = _large(job, lowered)
    lowered = replace(lowered, large=frozenset(large))
    layers: tuple[AdaptedLayer, ...] = ()
    if job.lora is not None and name in job.lora.components:
        lowered, layers = with_adapter_inputs(lowered, job.lora.rank)
    made = _artifact(job, lowered, float_types, folder, staging)
    if recipe is not None:
        write_recipe(recipe, folder)
    component = job.source.folder.components[name]
    write_file(folder / CONFIG_FILE, dump_json(portable(component.config)))
    for number, member in enumerate(component.members[1:], 1):
        further = folder.with_name(f"{folder.name}_{number}")
        make_folder(further)
        write_file(further / CONFIG_FILE, dump_json(portable(member.config)))
    write_buffers(job.source.skeleton.modules[name], folder)
    write_values(job.source.weights[name], job.source.captured.values.get(name, ()), folder)
    values = {} if table is None else {table.input: list(table.timesteps)}
    entry = {
        "folder": relative,
        "inputs": [
            {
                "argument": traced.name,
                **_declared(port),
                **({"values": values[traced.name]} if traced.name in values else {}),
                **({"form": made.forms[traced.name]} if traced.name in made.forms else {}),
            }
            for traced, port in zip(graph.inputs, made.inputs[: len(graph.inputs)], strict=True)
        ],
        "outputs": [
            {"field": name, **_declared(port)}
            for name, port in zip(made.fields, made.outputs, strict=True)
        ],
        "constants": record.constants(),
        **({} if made.artifact is None else {"artifact": made.artifact}),
        **({"state": dict(record.state)} if record.state else {}),
        **({"fixed": {k: as_values(v) for k, v in record.fixed.items()}} if record.fixed else {}),
        **_lora_inputs(job.lora, layers),
    }
    return entry, (*made.notes, *large_notes(record.where, large))


def _lora_inputs(lora: LoraReady | None, layers: Sequence[AdaptedLayer]) -> dict[str, Any]:
    if lora is None or not layers:
        return {}
    return {"lora": {"rank": lora.rank, "layers": [asdict(layer) for layer in layers]}}


def _large(job: Job, graph: Graph) -> Mapping[tuple[str, str], float]:
    """The ports whose values float16 does not hold, where a graph is computed in that and calibration has seen it."""
    if not graph.float16 or job.ranges is None or graph.where not in job.ranges.graphs:
        return {}
    return large_ports(job.ranges.graphs[graph.where])


@dataclass(frozen=True)
class _Made:
    """An artifact.

    Attributes:
        inputs: As it declares them, in the order of the graph's, those of adapters behind.
        outputs: As it declares them.
        fields: Traced name of each output.
        forms: Forms of inputs, by traced name.
        notes: The backend's.
        artifact: Where it is in the bundle, if not in the method's folder.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    fields: tuple[str, ...]
    notes: tuple[str, ...]
    forms: Mapping[str, str] = field(default_factory=dict)
    artifact: str | None = None


def _artifact(
    job: Job, graph: Graph, float_types: FloatTypes, folder: Path, staging: Path
) -> _Made:
    """Lowers a graph in the layout that was asked for."""
    if job.packages is None:
        face = graph_in_layout(graph, job.profile.layout)
        notes = _lowered(job, face, float_types, job.profile, folder).notes
        notes += check_opens(face, folder, job.backend, job.profile)
        fields = tuple(spec.name for spec in graph.outputs)
        return _Made(face.inputs, face.outputs, fields, notes)
    placed = job.packages.place(graph, float_types.storage)
    profile = job.packages.plain(graph.where, job.profile)
    files = _lowered(job, placed.graph, float_types, profile, folder)
    artifact = job.packages.move(graph.where, files.model, staging)
    face = placed.graph
    notes = files.notes + check_opens(face, staging / artifact, job.backend, job.profile)
    return _Made(face.inputs, face.outputs, placed.fields, notes, placed.forms, artifact)


def _lowered(
    job: Job, face: Graph, float_types: FloatTypes, profile: TargetProfile, folder: Path
) -> LoweredFiles:
    """Writes a graph that has its face, quantized by whoever quantizes it."""
    check_request(face, float_types.storage, profile)
    if job.quantizer is None or not job.quantizer.takes(face.component):
        return job.backend.lower(face, float_types, profile, folder)
    with TemporaryDirectory(prefix=".float-", dir=folder) as temporary:
        floats = job.backend.lower(face, float_types, profile, Path(temporary))
        return job.quantizer.quantize(floats, job.calls.get(face.where, ()), folder)


def _declared(port: TensorSpec) -> dict[str, Any]:
    declared: dict[str, Any] = {"name": port.name, "dtype": port.dtype, "shape": list(port.shape)}
    return {**declared, "pairs": True} if port.pairs else declared
