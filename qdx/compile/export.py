"""The main job: a pipeline folder, a plan and a target become a bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from qdx._version import __version__
from qdx.backends.capabilities import AddsHelpers, Notes, QuantizesArtifacts, lacks
from qdx.backends.registry import get_backend
from qdx.bundle.companions import copy_helpers
from qdx.bundle.resolution import record_of
from qdx.bundle.writer import BundleWriter
from qdx.cache.numbers import StoredNumbers
from qdx.calibration.calls import record_calls
from qdx.calibration.estimate import check_workers
from qdx.calibration.kept import Kept
from qdx.calibration.record import matching_ranges, needs_ranges, record_ranges
from qdx.compile.alone import alone_notes, why_not_alone
from qdx.compile.application import check_layout, open_layout, write_resources
from qdx.compile.engines import built_engines, check_engines, engine_notes
from qdx.compile.learning import learning_of
from qdx.compile.lora_ready import check_lora_ready, lora_ready_components
from qdx.compile.lowering import Job, lower_all
from qdx.compile.notes import (
    float_notes,
    option_notes,
    size_notes,
    table_notes,
    upcast_notes,
    usual_notes,
)
from qdx.compile.unused import write_unused
from qdx.exporter.calibrate.coverage import calibrated_timesteps, coverage
from qdx.exporter.calibrate.ranges import Ranges
from qdx.exporter.calibrate.ranges_header import check_ranges_file
from qdx.exporter.capture.adapters import parse_lora
from qdx.exporter.capture.model import read_model
from qdx.exporter.capture.recorded_call import record_call
from qdx.exporter.capture.setup import check_setup
from qdx.exporter.cautions import collected
from qdx.exporter.devices import choose_device
from qdx.exporter.errors import UsageError, quoted
from qdx.exporter.formats.memory import remembering
from qdx.exporter.plan.resolve.resolve import resolve
from qdx.exporter.plan.schema.load import load_plan
from qdx.exporter.progress import SILENT
from qdx.exporter.text.card import card
from qdx.exporter.text.words import size
from qdx.exporter.transforms.given_file import Given, read_given
from qdx.source.adapted import with_adapters
from qdx.source.pipeline import trace_pipeline
from qdx.source.planned import PlannedGraphs, plan_graphs
from qdx.source.schedule import schedules
from qdx.source.timesteps import with_exact_timesteps
from qdx.targets.profile import load_target

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from qdx.backends.capabilities import ArtifactQuantizer, EngineRecord
    from qdx.backends.contract import Backend
    from qdx.cache.store import Store
    from qdx.calibration.calls import Arrays, RecordedCalls
    from qdx.exporter.capture.capture import Shapes
    from qdx.exporter.capture.model import Model
    from qdx.exporter.capture.skeleton import Skeleton
    from qdx.exporter.plan.schema.plan import Plan
    from qdx.exporter.progress import Progress
    from qdx.source.pipeline import TracedPipeline
    from qdx.source.schedule import MethodSchedule
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
        engines: What is on record of each engine that was built, by its folder in the bundle.
        notes: What was done unasked, and what the bundle lacks that some of the target's readers want, with the way out.
    """

    bundle: Path
    methods: tuple[str, ...]
    size_bytes: int
    omitted: dict[str, str]
    left_out: tuple[str, ...]
    notes: tuple[str, ...] = ()
    engines: Mapping[str, EngineRecord] = field(default_factory=dict)

    def _repr_html_(self) -> str:
        """What was made, for a notebook."""
        rows = [("graphs", ", ".join(self.methods)), ("size", size(self.size_bytes))]
        rows += [("engine", folder) for folder in self.engines]
        rows += [("left out", name) for name in self.left_out]
        rows += [(f"without {name}", reason) for name, reason in self.omitted.items()]
        rows += [("note", note) for note in self.notes]
        return card(str(self.bundle), (), rows)


def export(
    model: Model,
    *,
    target: str | Path | TargetProfile,
    plan: str | Path,
    output: Path | str,
    call: dict[str, Any] | None = None,
    components: Sequence[str] | None = None,
    shapes: Shapes = "static",
    setup: Sequence[Mapping[str, Any]] = (),
    variant: str | None = None,
    ranges: Path | None = None,
    weights: Path | None = None,
    prompts: Sequence[str] | None = None,
    layout: str | None = None,
    halves: bool = False,
    lora: Sequence[Path | str] = (),
    lora_ready: int | None = None,
    workers: int | None = None,
    device: str = "cpu",
    cache: Store | None = None,
    fresh: bool = False,
    force: bool = False,
    build: bool | None = None,
    progress: Progress = SILENT,
) -> ExportResult:
    """Traces a pipeline and lowers it to a target, all or nothing.

    Example:
        A bundle with weights of 8 bits, for a target such as `openvino`::

            result = qdx.export("MODEL", target=target, plan="w8", output="bundle")
            print(result.size_bytes)

    Args:
        model: A diffusers pipeline folder, or a pipeline in memory, which stays as it is.
        target: A target's name, such as `openvino`, or a TOML file of your own; or one that was read.
        plan: A preset's name or a plan file.
        output: The bundle's folder; it must not exist unless `force`.
        call: Arguments of the pipeline call that decides shapes and options: plain JSON, and images or
            their paths, of which the bundle keeps the size alone. None takes the pipeline's defaults.
        components: Export only these; None exports all.
        shapes: `static` fixes the call's sizes, `dynamic` leaves open what moves between two calls.
        setup: Methods of the pipeline that are called before, with their arguments, such as
            `[{"enable_vae_tiling": {}}]`; an opened bundle repeats them.
        variant: Of the stored weights, such as `fp16`; components without it are read from their unmarked ones. None
            takes the unmarked ones, or the only variant that there is.
        ranges: A file of ranges that `qdx calibrate` made; None calibrates where the plan needs it.
        weights: A file of weights that another tool has quantized, as `qdx plan import` writes it; its integers, scales and
            tables are taken as they are. None for none.
        prompts: Prompts to calibrate with; None takes the call's own with several seeds.
        layout: The layout of an application's own packages, such as `swift`, or of the files that one reader of
            finished engines opens, such as `epcontext`; None for the target's.
        halves: With a layout: a model comes as two packages where the application takes it so, each with about
            half of the weights.
        lora: Files of low-rank adapters, each as `FILE` or `FILE:SCALE`, merged into the weights as they are read.
        lora_ready: The rank of the adapters that the denoiser's artifacts take at run time, when an opened bundle loads
            some: of all that are active together. None for artifacts that take none.
        workers: Samples calibrated at a time, each with one thread; None takes one for each processor.
        device: What computes a calibration: `cpu`, `cuda`, `cuda:1` or `auto`.
        cache: Where digests, ranges, chosen scales and calibrations under way are kept between runs, such as
            `qdx.cache.user_store()`; the bundle is the same without. None keeps nothing.
        fresh: Calibrate anew, whatever is kept of an earlier run.
        force: Replace an existing bundle, atomically.
        build: Whether engines are built, for a target whose engines any machine builds; False leaves that to
            `qdx.build`. None builds them where the target has such.
        progress: Shows the steps.

    Raises:
        UsageError, InvalidPlan, InvalidTarget, InvalidModel, TargetRefusal, RuntimeMissing, StorageError: See their texts.
    """
    output = Path(output)
    BundleWriter.check(output, force=force)
    chosen = choose_device(device, progress.say)
    check_workers(workers, chosen)
    profile = load_target(target) if isinstance(target, str | Path) else target
    backend = get_backend(profile.runtime)
    builder, builder_versions = check_engines(backend, profile, build=build)
    intent = load_plan(plan)
    quantizer = _artifact_quantizer(intent, profile, backend, ranges)
    profile = check_layout(layout, profile, shapes, halved=halves)
    check_lora_ready(lora_ready, intent, layout)
    if ranges is not None:
        check_ranges_file(ranges)  # the rest of it is read once the graphs are known
    given = None if weights is None else _given(weights, intent, lora)
    folder = read_model(model, variant=variant).with_setup(check_setup(setup))
    packages = open_layout(layout, profile, folder, halved=halves)
    source = trace_pipeline(
        with_adapters(folder, [parse_lora(str(one)) for one in lora]),
        call or {},
        components=components,
        shapes=shapes,
        variant=variant,
        progress=progress,
        cache=cache,
    )
    call = source.call
    recorded_call = record_call(call)
    if packages is not None:
        packages.check(source)
    adaptable = lora_ready_components(lora_ready, source)
    skeleton = source.skeleton
    profile, timestep_notes = with_exact_timesteps(profile, skeleton, source.captured)
    planned = _planned(source, intent, profile, given)
    recording = partial(
        record_ranges, source, intent, call, prompts=prompts, planned=planned, choices=profile.choices,
        workers=workers, device=chosen, kept=None if cache is None else Kept(cache, fresh=fresh), progress=progress,
    )  # fmt: skip
    recording_calls = None if quantizer is None else partial(
        record_calls, source, planned, profile, call, quantizer, prompts=prompts, device=chosen, progress=progress
    )  # fmt: skip
    calibrated = _calibrated(lambda: _ranges(source, planned, ranges, recording), recording_calls)
    timed: Mapping[str, MethodSchedule] = {}
    if intent.options.time_embedding == "precompute":
        call, timed = schedules(source, call)
        recorded_call = record_call(call)
    learning = learning_of(
        source, planned, intent, prompts, cache, workers=workers, device=chosen, fresh=fresh, progress=progress
    )  # fmt: skip
    job = Job(
        source,
        planned,
        calibrated.ranges,
        timed,
        profile,
        backend,
        packages,
        quantizer,
        calibrated.calls,
        adaptable,
        given,
        learning.learner,
        learning.tuner,
    )
    memory = None if cache is None else StoredNumbers(cache)
    with remembering(memory), learning, BundleWriter(output, force=force) as writer:
        entries, notes = lower_all(job, writer.staging, progress)
        helpers = _write_without_artifacts(source, writer.staging)
        needs_model = why_not_alone(source, entries, writer.staging)
        helper_notes: tuple[str, ...] = ()
        if isinstance(backend, AddsHelpers):
            tokenizers = _tokenizers(skeleton, helpers, writer.staging)
            helper_notes = backend.add_helpers(tokenizers, writer.staging)
        if packages is not None:
            write_resources(packages, writer.staging)
        engines = built_engines(builder, entries, writer.staging, progress)
        with progress.task("writing the bundle"):
            writer.commit({
                "schema": "qdx.bundle/1",
                "qdx": __version__,
                "target": {"name": profile.name, "runtime": profile.runtime, "options": dict(profile.options), "profile": profile.to_json()},
                "plan": intent.to_json(),
                "resolution": planned.resolved.to_json(),
                "resolved": record_of(planned.resolved),
                "calibration": calibrated.record,
                "source": {
                    "pipeline_class": source.folder.pipeline_class,
                    "files": dict(source.source_digests),
                    **_lora_records(source),
                },
                "call": recorded_call,
                "shapes": shapes,
                "components": entries,
                "omitted": skeleton.omitted,
                "left_out": list(source.left_out),
                **({"setup": [dict(step) for step in folder.setup]} if folder.setup else {}),
                **({} if needs_model is None else {"needs_model": needs_model}),
                "versions": {
                    **backend.versions(),
                    **({} if quantizer is None else quantizer.versions()),
                    **builder_versions,
                    "torch": torch.__version__,
                },
                **({} if layout is None else {"layout": layout}),
                **({} if source.sizes is None else {"sizes": source.sizes}),
            })  # fmt: skip
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    return ExportResult(
        output,
        tuple(source.chosen),
        size,
        skeleton.omitted,
        source.left_out,
        (
            *calibrated.notes,
            *source.notes,
            *usual_notes(source),
            *timestep_notes,
            *float_notes(planned.resolved),
            *upcast_notes(planned.resolved, profile, source.upcast, entries),
            *size_notes(calibrated.ranges, call),
            *option_notes(planned.resolved, profile, entries),
            *table_notes(entries),
            *helper_notes,
            *alone_notes(needs_model),
            *notes,
            *(
                backend.notes(planned.resolved, profile, entries)
                if isinstance(backend, Notes)
                else ()
            ),
            *engine_notes(backend, engines),
        ),
        {} if engines is None else engines.records,
    )


def _write_without_artifacts(source: TracedPipeline, staging: Path) -> tuple[str, ...]:
    """Writes what no artifact is made of; returns the names of the components that are no modules."""
    write_unused(source, staging)
    return copy_helpers(source.folder, source.skeleton, staging)


def _lora_records(source: TracedPipeline) -> dict[str, Any]:
    """What the manifest keeps of adapters: digests and scales, never a path."""
    adapters = source.folder.adapters
    if adapters is None:
        return {}
    return {"lora": [{"sha256": digest, "scale": scale} for digest, scale in adapters.records]}


def _given(path: Path, plan: Plan, lora: Sequence[Path | str]) -> Given:
    """Weights that another tool has quantized.

    Raises:
        InvalidInput: The file is none of such weights.
        UsageError: Adapters or the plan change weights before they are quantized, or the plan biases by what is lost.
    """
    if lora:
        raise UsageError(
            f"{quoted(path)}: given weights, and adapters to merge into the weights",
            hint="quantize the model with the adapters merged, or give them at run time with `lora_ready`",
        )
    if plan.tune is not None:
        raise UsageError(
            f"{quoted(path)}: given weights, and the plan asks for `tune`, which learns weights of its own",
            hint="take a plan without `tune`",
        )
    for name in ("smoothing", "bias_correction"):
        if getattr(plan.options, name):
            raise UsageError(
                f"{quoted(path)}: given weights, and the plan asks for `{name}`, which works with weights that qdx quantizes",
                hint=f"take a plan without `options.{name}`",
            )
    for name, does in (
        ("low_rank", "takes a `low_rank` part out of"),
        ("rotate", "rotates (`rotate`)"),
    ):
        if any(rule.weights and getattr(rule.weights, name) for rule in plan.rules):
            raise UsageError(
                f"{quoted(path)}: given weights, and the plan {does} weights before they are quantized",
                hint=f"take a plan without `weights.{name}`",
            )
    return read_given(path)


def _artifact_quantizer(
    plan: Plan, profile: TargetProfile, backend: Backend, ranges: Path | None
) -> ArtifactQuantizer | None:
    """Somebody else's quantizer, where the plan names one that the target has; the plan's resolution refuses others.

    Raises:
        RuntimeMissing: It is not installed.
        UsageError: A file of ranges is given, which it cannot use, or the backend knows no such quantizer.
    """
    if not plan.quantizes_artifacts or plan.quantizer not in profile.quantizers:
        return None
    if not isinstance(backend, QuantizesArtifacts):
        raise lacks(backend, QuantizesArtifacts, f"quantizer `{plan.quantizer}`")
    if ranges is not None:
        raise UsageError(
            f"--ranges: quantizer `{plan.quantizer}` takes calls of the components and no ranges",
            hint="leave it out; --calib gives prompts",
        )
    quantizer = backend.artifact_quantizer(plan)
    quantizer.check_installed()
    return quantizer


def _planned(
    source: TracedPipeline, plan: Plan, profile: TargetProfile, given: Given | None = None
) -> PlannedGraphs:
    """The graphs and what becomes of their sites; graphs of a plan for whole components are traced one by one later.

    Raises:
        UsageError: Weights are given that the pipeline does not have.
    """
    if given is not None:
        given.check_names(source.weights)
    if plan.quantizes or plan.selects_operations:
        return plan_graphs(source, plan, profile)
    return PlannedGraphs(
        {},
        {},
        resolve(
            plan,
            source.skeleton.modules,
            profile,
            kinds=source.captured.kinds,
            upcast=source.upcast,
        ),
    )


def _ranges(
    source: TracedPipeline,
    planned: PlannedGraphs,
    file: Path | None,
    record: Callable[[], Ranges],
) -> Ranges | None:
    """The ranges that the plan needs, from a file or from calibration."""
    if not needs_ranges(planned.resolved):
        return None
    return (
        record() if file is None else matching_ranges(file, source, planned.resolved, planned.sites)
    )


@dataclass(frozen=True)
class _Calibrated:
    """What calibration gave.

    Attributes:
        ranges: Of activations; None where the plan needs none.
        calls: What somebody else's quantizer calibrates with.
        record: What the manifest says of it.
        notes: What it did unasked.
    """

    ranges: Ranges | None
    calls: Mapping[str, Sequence[Arrays]]
    record: dict[str, Any] | None
    notes: tuple[str, ...]


def _calibrated(
    ranges: Callable[[], Ranges | None], calls: Callable[[], RecordedCalls] | None
) -> _Calibrated:
    with collected() as cautions:
        found = ranges()
        if calls is None:
            return _Calibrated(found, {}, _calibration(found), tuple(cautions))
        recorded = calls()
        return _Calibrated(found, recorded.samples, recorded.record, tuple(cautions))


def _calibration(ranges: Ranges | None) -> dict[str, Any] | None:
    """What the manifest keeps of the ranges: where they come from, and what they cover."""
    if ranges is None:
        return None
    return {
        **ranges.provenance.model_dump(mode="json"),
        "coverage": coverage(ranges),
        "timesteps": calibrated_timesteps(ranges),
    }


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
