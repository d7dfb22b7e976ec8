"""The verification of a bundle, from its digests to the finished pictures."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory, mkdtemp
from typing import TYPE_CHECKING, Any

from qdx.backends.registry import get_backend
from qdx.bundle.reader import Bundle, read_bundle
from qdx.cache.facts import versions_of
from qdx.cache.numbers import StoredNumbers
from qdx.compile.nncf import with_nncf
from qdx.exporter.capture.folder import read_pipeline_folder
from qdx.exporter.capture.recorded_call import restore_call
from qdx.exporter.cost.memory import give_back
from qdx.exporter.devices import choose_device, is_cpu
from qdx.exporter.errors import QdxError, UsageError, quoted
from qdx.exporter.plan.schema.load import plan_from_json
from qdx.exporter.progress import SILENT, Progress
from qdx.runtime.caution import caution_of
from qdx.runtime.pipeline import open_methods
from qdx.runtime.tensor_folder import TensorFolder
from qdx.source.same_model import check_source
from qdx.verification.judge.evaluate import Evidence, gates_of
from qdx.verification.measure.answers import KIND as ANSWERS
from qdx.verification.measure.audit import audit_bundle
from qdx.verification.measure.comparison import Choice, choose_calls, compare_runs
from qdx.verification.measure.components import MethodResult
from qdx.verification.measure.coverage import read_coverage
from qdx.verification.measure.lockstep import LockstepCall, measure_in_lockstep
from qdx.verification.measure.outlook import (
    LOCKSTEP,
    UNKNOWN,
    MethodWork,
    Outlook,
    is_large,
    memory_bytes,
)
from qdx.verification.measure.picture import compare_products
from qdx.verification.measure.quantized import (
    answers_of,
    has_unoptimized,
    localize_worst,
    middle_rungs,
    quantized_model,
    quantized_wheres,
)
from qdx.verification.measure.reference_runs import Reference, ReferenceUse
from qdx.verification.measure.rungs import ARTIFACT
from qdx.verification.measure.runs import ArtifactPipeline, first_pictures
from qdx.verification.measure.samples import RunResult, RunSpec, Samples, latent_sqnr_db, run_specs
from qdx.verification.measure.score import Score, load_score
from qdx.verification.measure.selection import compared_in_part
from qdx.verification.report.folder import clear_report, write_report
from qdx.verification.report.model import Report

if TYPE_CHECKING:
    import torch

    from qdx.backends.contract import Proof
    from qdx.cache.store import Store
    from qdx.exporter.formats.memory import Memory
    from qdx.exporter.plan.schema.plan import Plan
    from qdx.runtime.methods import TargetMethod
    from qdx.verification.measure.audit import AuditResult
    from qdx.verification.measure.quantized import QuantizedModel
    from qdx.verification.measure.recorded_run import RecordedRun
    from qdx.verification.measure.rungs import Rung

__all__ = ["verify"]


def verify(
    bundle: Path | str,
    *,
    model: Path | str,
    report: Path | str | None = None,
    seed: int = 0,
    seeds: int = 1,
    steps: int | None = None,
    prompts: Sequence[str] | None = None,
    call: dict[str, Any] | None = None,
    score: str | None = None,
    localize: bool = False,
    budget_s: float | None = None,
    device: str = "cpu",
    cache: Store | None = None,
    progress: Progress = SILENT,
) -> Report:
    """Holds a bundle against the pipeline it was made from, and its numbers against its plan.

    The PyTorch pipeline runs in float32, with every component call on record. The calls are replayed one by
    one, for a quantized bundle on each rung of the ladder: the quantized graph in PyTorch (a few calls of a large
    model), the runtime without its optimizations where it can (a few calls), and the runtime as shipped. Then the
    bundle's own pipeline makes its picture of the same noise. A dynamic bundle is also compared at a second batch and size.

    Args:
        bundle: The bundle.
        model: The pipeline folder it was made from.
        report: Folder for report.json, junit.xml, report.html and the pictures; None writes nothing.
        seed: Of the first noise.
        seeds: Number of seeds, one after the other; figures then have intervals.
        steps: Denoising steps; None takes those of the call or the pipeline's own number, at most 20.
        prompts: Each is run with every seed; None takes the call's own.
        call: Arguments of the pipeline that replace those of the export. Images are given here again, or
            are seeded noise of the same size: a bundle names no file.
        score: `FILE:FUNCTION` of a Python function that takes a picture and its prompt and gives a number
            from 0 to 1. The file's code is run.
        localize: Measure at which sites the error of quantization enters.
        budget_s: Seconds that comparing calls may take, of all runs together; the first and the last step of
            every method are compared in any case. None compares what is usual, see
            `qdx.verification.measure.selection.usual_choice`.
        device: What computes in PyTorch, the reference and the quantized graph: `cpu`, `cuda`, `cuda:1` or `auto`.
        cache: Keeps the reference's runs, the answers of the quantized graphs and digests of files, so that the next
            verification of the same model and call finds them; None computes all of it and keeps nothing.
        progress: Shows the steps.

    Returns:
        The report. A gate that fails makes its `ok` False and raises nothing.

    Raises:
        InvalidBundle: The bundle is damaged or altered.
        InvalidModel: The folder is not the pipeline that the bundle was made from.
        InvalidPlan: The plan in the bundle does not follow its schema.
        UsageError: The pipeline or the artifact does not take this call, the score function is none, or the
            report folder lies in the bundle or holds files of others.
        RuntimeMissing: The runtime is not installed, or there is no such device.
        StorageError: Reading or writing failed.
    """
    computing = choose_device(device, progress.say)
    destination = None if report is None else Path(report)
    if destination is not None:
        _check_outside(destination, Path(bundle))
    opened = read_bundle(bundle)
    manifest = opened.manifest
    plan = plan_from_json(manifest.plan, source=f"{opened.path.name}: plan")
    folder = read_pipeline_folder(model)
    check_source(manifest.source.files, folder.path, cache=cache, progress=progress)
    judge = None if score is None else load_score(score)
    if destination is not None:
        clear_report(destination)
    methods = open_methods(opened, progress=progress)
    with TemporaryDirectory(prefix="qdx-verify-") as work:
        reference = Reference(
            folder, opened, work=Path(work), store=cache, device=computing, progress=progress
        )
        chosen = reference.chosen_call({**restore_call(manifest.call), **(call or {})}, steps)
        specs = run_specs(
            chosen,
            seed=seed,
            seeds=seeds,
            prompts=prompts,
            name=type(reference.pipeline).__name__,
            complete=reference.complete,
        )
        specs = tuple(RunSpec(reference.complete(spec.call), spec.seed) for spec in specs)
        audited = _audited(opened, plan, model, progress)
        outlook = UNKNOWN
        # A budget says how long, and what a GPU takes tells nothing of what the processor does.
        if audited is not None and budget_s is None and is_cpu(computing):
            outlook = _outlook(opened, audited, reference, specs, progress)
        runs = _run_reference(reference, specs, outlook, dynamic=manifest.shapes == "dynamic")
        # Before the artifact's pipeline is built: its weights need not be in memory beside these.
        reference.release()
        give_back()
        fields = {
            where: frozenset(port.field for port in method.outputs)
            for where, method in methods.items()
            # An application's packages leave out what it does not read.
            if manifest.layout is not None
        }
        scratch = TensorFolder(Path(mkdtemp(dir=work)))
        job = _Job(
            opened,
            plan,
            model,
            methods,
            fields,
            runs,
            judge,
            scratch,
            None if cache is None else StoredNumbers(cache, ANSWERS),
            budget_s,
            computing,
            outlook,
            progress,
        )
        found = _measure(job, audited, localize=localize)
    if destination is not None:
        write_report(found, destination)
    return found


@dataclass(frozen=True)
class _Runs:
    """What the reference did, on disk."""

    specs: tuple[RunSpec, ...]
    recorded: tuple[RecordedRun, ...]
    other_shape: RecordedRun | None
    use: ReferenceUse


@dataclass(frozen=True)
class _Job:
    """What measuring needs to know."""

    bundle: Bundle
    plan: Plan
    model: Path | str
    methods: dict[str, TargetMethod]
    fields: Mapping[str, frozenset[str]]
    runs: _Runs
    judge: Score | None
    scratch: TensorFolder
    memory: Memory | None
    budget_s: float | None
    device: torch.device
    outlook: Outlook
    progress: Progress


@dataclass(frozen=True)
class _Audited:
    """What a bundle was made from, where it is quantized, and what the runtime executes of it."""

    quantized: QuantizedModel
    audits: tuple[AuditResult, ...]


def _audited(bundle: Bundle, plan: Plan, model: Path | str, progress: Progress) -> _Audited | None:
    """The quantized model, and its audit; None of a bundle that is not quantized.

    An audit opens every graph by itself: most runtimes hold none of the rungs' own yet.
    """
    if not quantized_wheres(bundle) and plan.quantizer != "nncf":
        return None
    found = quantized_model(bundle, plan, model, progress=progress)
    audits = audit_bundle(bundle, with_nncf(found.resolved), progress)
    give_back()
    return _Audited(found, audits)


def _outlook(
    bundle: Bundle,
    audited: _Audited,
    reference: Reference,
    specs: Sequence[RunSpec],
    progress: Progress,
) -> Outlook:
    """What a verification of a quantized bundle is about to take; says it.

    Raises:
        InsufficientMemory: There is not as much.
    """
    quantized = audited.quantized
    macs = quantized.macs
    if not is_large(macs):
        return UNKNOWN
    try:
        steps_of = reference.steps_of(specs[0])
    except QdxError as error:  # the run itself may do better, or say it
        progress.say(f"verifying: takes a time that cannot be told: {error.message}")
        return UNKNOWN
    fresh = sum(reference.kept(spec) is None for spec in specs)
    works = {
        where: MethodWork(
            macs=macs[where],
            steps=steps,
            runs=len(specs),
            recorded=sum(steps) * fresh,
            quantized=where in quantized.quantized,
            unoptimized=where in quantized.quantized and has_unoptimized(bundle, where),
        )
        for where, steps in steps_of.items()
        if where in macs
    }
    held_bytes = memory_bytes(
        quantized.graphs,
        quantized.quantized,
        _artifacts_bytes(bundle),
        bundle.manifest.target.runtime,
        weights_bytes=reference.converted_bytes if fresh else 0,
        shapes=2 if bundle.manifest.shapes == "dynamic" else 1,
    )
    outlook = Outlook(works, held_bytes, progress)
    outlook.begin()
    for audit in audited.audits:
        for where, call_s in audit.call_s.items():
            outlook.measured(ARTIFACT, where, call_s)
    return outlook


def _artifacts_bytes(bundle: Bundle) -> dict[str, int]:
    """Of the files of each artifact, weights and all, by `component.method`."""
    return {
        f"{name}.{method}": sum(
            file.size_bytes
            for file in bundle.manifest.files
            if PurePosixPath(file.path).is_relative_to(entry.opened)
        )
        for name, component in bundle.manifest.components.items()
        for method, entry in component.methods.items()
    }


def _run_reference(
    reference: Reference, specs: tuple[RunSpec, ...], outlook: Outlook, *, dynamic: bool
) -> _Runs:
    """Runs the reference, once for each spec, and for a dynamic bundle at another shape."""
    recorded = tuple(reference.run(spec, outlook) for spec in specs)
    other = None
    if dynamic:
        other = reference.run_at_other_shape(specs[0], recorded[0].made.products)
    return _Runs(specs, recorded, other, reference.use)


def _measure(job: _Job, audited: _Audited | None, *, localize: bool) -> Report:
    """Every measurement, and the gates."""
    bundle, runs, progress = job.bundle, job.runs, job.progress
    manifest = bundle.manifest
    quantized = quantized_wheres(bundle)
    model = None
    audits: tuple[AuditResult, ...] = ()
    between: dict[str, tuple[Rung, ...]] = {}
    by_nncf = job.plan.quantizer == "nncf"
    macs: dict[str, int] = {}
    records, *more = (run.records_with(job.fields) for run in runs.recorded)
    if audited is not None:
        model, audits = audited.quantized, audited.audits
        macs = {where: model.macs[where] for where in model.quantized}
        answers = answers_of(model, bundle, job.device, scratch=job.scratch, memory=job.memory)
        few: frozenset[str] = frozenset()
        if job.budget_s is None and is_cpu(job.device):
            # Lockstep computes these anyway; the others would cost as much as a call of the reference each.
            few = compared_in_part(records, macs)
        between = middle_rungs(bundle, job.methods, model, answers, job.device, few=few)
        runs.use.quantized = answers.use if model.quantized else None
    every_call = bool(quantized) or job.plan.quantizes or job.plan.gates.conditioning is not None
    chosen = choose_calls(
        [records, *more],
        None if runs.other_shape is None else runs.other_shape.records_with(job.fields),
        job.methods,
        between,
        choice=Choice(job.budget_s, every_call, macs),
        progress=progress,
    )
    lockstep: tuple[LockstepCall, ...] = ()
    if model is not None and not by_nncf:
        # Before the rungs: where these compute on the processor too, they need not do it again.
        keep = answers.keep if is_cpu(job.device) else None
        lockstep = measure_in_lockstep(
            bundle,
            model,
            job.methods,
            chosen.runs[0],
            keep=keep,
            told=partial(job.outlook.measured, LOCKSTEP),
            progress=progress,
        )
        give_back()
        job.outlook.tell()
    compared = compare_runs(
        chosen,
        job.methods,
        between,
        scratch=job.scratch,
        told=job.outlook.measured,
        progress=progress,
    )
    by_run = tuple(
        tuple(replace(result, run=str(spec)) for result in results) if more else results
        for spec, results in zip(runs.specs, compared.runs, strict=True)
    )
    first, other = by_run[0], compared.other_shape
    localization = None
    if localize and model is not None:
        localization = localize_worst(model, job.methods, records, first, progress)
    samples = _run_artifact(job, by_run)
    coverage = read_coverage(manifest.calibration)
    pipeline = samples.runs[0].pipeline
    evidence = Evidence(quantized, audits, coverage, samples, lockstep)
    return Report(
        bundle=bundle.path.name,
        target=manifest.target.name,
        runtime=manifest.target.runtime,
        proof=_proof(bundle),
        plan=job.plan.name or "unnamed",
        seed=runs.specs[0].seed,
        steps=runs.specs[0].call.get("num_inference_steps"),
        call=runs.specs[0].call,
        gates=gates_of(job.bundle.manifest.resolved.gates, first, other, pipeline, evidence),
        methods=first,
        other_methods=other,
        pipeline=pipeline,
        versions=_versions(manifest.target.runtime),
        samples=samples,
        audits=audits,
        coverage=coverage,
        localization=localization,
        lockstep=lockstep,
        reference=runs.use,
    )


def _run_artifact(job: _Job, compared: Sequence[tuple[MethodResult, ...]]) -> Samples:
    """The bundle's own pipeline against what the reference made, run by run."""
    give_back()
    job.outlook.tell()
    pipeline = ArtifactPipeline(
        job.bundle,
        job.model,
        job.methods,
        job.device,
        calls=job.outlook.calls_of_a_run,
        progress=job.progress,
    )
    found: list[RunResult] = []
    for spec, run, methods in zip(job.runs.specs, job.runs.recorded, compared, strict=True):
        reference = run.made
        made, error = pipeline.run(spec)
        products = compare_products(reference.products, made.products, error)
        scores: list[float | None] = [None, None]
        if job.judge is not None:
            sides = (reference.products, made.products)
            scores = [job.judge.mean(first_pictures(one), spec.prompts) for one in sides]
        latent = latent_sqnr_db(reference.latents, made.latents)
        if found:  # the report shows what the first run made
            products = replace(products, reference={}, artifact={})
        found.append(RunResult(spec, methods, products, latent, *scores))
    return Samples(tuple(found), "" if job.judge is None else job.judge.name)


def _check_outside(report: Path, bundle: Path) -> None:
    """Refuses a report inside the bundle: with one more file it is no bundle."""
    if report.resolve().is_relative_to(bundle.resolve()):
        raise UsageError(
            f"--report: {quoted(report)} lies in {quoted(bundle)}, expected a folder elsewhere"
        )


def _proof(bundle: Bundle) -> Proof:
    """What the runs prove, of all artifacts together."""
    components = bundle.manifest.components.values()
    opened = dict.fromkeys(m.opened for one in components for m in one.methods.values())
    backend = get_backend(bundle.manifest.target.runtime)
    proof = backend.proof([bundle.path / path for path in opened])
    device = bundle.manifest.target.profile.proved_on
    if device is not None and proof.status == "device-verified":
        proof = replace(proof, status="artifact-verified", unproved=f"what {device} makes of it")
    return replace(proof, caution=caution_of(bundle))


def _versions(runtime: str) -> dict[str, str]:
    """Versions of everything that took part."""
    found = versions_of("diffusers", "numpy", "torch", "torchmetrics", "transformers")
    return {"python": platform.python_version(), **found, **get_backend(runtime).versions()}
