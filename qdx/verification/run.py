"""The first step of a verification: what takes part is opened and checked, and PyTorch runs the pipeline on record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qdx.bundle.reader import Bundle, read_bundle
from qdx.exporter.capture.call_files import load_files
from qdx.exporter.capture.media import call_parameters
from qdx.exporter.capture.recorded_call import restore_call
from qdx.exporter.cost.memory import give_back
from qdx.exporter.devices import CPU, is_cpu
from qdx.exporter.errors import quoted
from qdx.exporter.plan.schema.load import plan_from_json
from qdx.exporter.progress import Progress
from qdx.runtime.call_check import check_call
from qdx.runtime.pipeline import open_methods
from qdx.source.adapted import recorded_adapters, with_adapters
from qdx.source.same_model import check_source, read_source
from qdx.targets import list_targets, load_target
from qdx.verification.forecast import outlook_of
from qdx.verification.judge.contract import Contract, Judge
from qdx.verification.measure.audit import asked_of, audit_bundle
from qdx.verification.measure.call_times import CallTimes
from qdx.verification.measure.outlook import UNKNOWN, Outlook
from qdx.verification.measure.quantized import QuantizedModel, quantized_model, quantized_wheres
from qdx.verification.measure.reference_runs import Reference, ReferenceUse
from qdx.verification.measure.samples import RunSpec, run_specs
from qdx.verification.reference_reader import read_reference

if TYPE_CHECKING:
    import torch

    from qdx.cache.store import Store
    from qdx.exporter.capture.folder import PipelineFolder
    from qdx.exporter.capture.model import Model
    from qdx.exporter.plan.schema.plan import Plan
    from qdx.runtime.methods import TargetMethod
    from qdx.verification.measure.audit import AuditResult
    from qdx.verification.measure.recorded_run import RecordedRun
    from qdx.verification.measure.stored_graph import StoredModel
    from qdx.verification.reference_reader import StoredReference

__all__ = [
    "Audited", "Opened", "Request", "Runs", "open_both", "open_with_reference", "run_reference", "stored_runs",
]  # fmt: skip

_NAMED = ("torch", "diffusers", "transformers")


@dataclass(frozen=True)
class Request:
    """What is to be run; see `qdx.verification.verify.verify`."""

    seed: int = 0
    seeds: int = 1
    steps: int | None = None
    prompts: Sequence[str] | None = None
    call: dict[str, Any] | None = None


@dataclass(frozen=True)
class Opened:
    """A bundle and the pipeline that it was made from, checked.

    Attributes:
        bundle: The bundle.
        plan: Its plan.
        contract: What judges it.
        folder: The pipeline's folder, read; None where a stored reference stands for it.
        device: What computes in PyTorch.
        cache: Keeps what was computed; None for nothing.
        progress: Shows the steps.
        reference: Stands for the pipeline; None where that runs.
    """

    bundle: Bundle
    plan: Plan
    contract: Contract
    folder: PipelineFolder | None
    device: torch.device
    cache: Store | None
    progress: Progress
    reference: StoredReference | None = None

    def methods(self) -> dict[str, TargetMethod]:
        """The bundle's methods, opened on the target."""
        return open_methods(self.bundle, progress=self.progress)


@dataclass(frozen=True)
class Audited:
    """What a bundle was made from, where it is quantized, and what the runtime executes of it."""

    quantized: QuantizedModel | StoredModel
    audits: tuple[AuditResult, ...]


@dataclass(frozen=True)
class Runs:
    """What the reference did, on disk.

    Attributes:
        specs: What was run.
        recorded: The runs.
        other_shape: A run at a second shape; None for artifacts of static shapes.
        use: Where the runs came from.
        audited: The quantized model and its audit; None of a bundle that is not quantized.
        outlook: Told of every call, for the estimate of what is left.
        parameters: How many numbers the weights of each component are; of components that nobody counted, nothing.
        times: Of the calls so far.
    """

    specs: tuple[RunSpec, ...]
    recorded: tuple[RecordedRun, ...]
    other_shape: RecordedRun | None
    use: ReferenceUse
    audited: Audited | None
    outlook: Outlook
    parameters: dict[str, int] = field(default_factory=dict)
    times: CallTimes = field(default_factory=CallTimes)

    def measured(self, kind: str, where: str, seconds: float) -> None:
        """Takes a call that is done."""
        self.outlook.measured(kind, where, seconds)
        self.times.measured(kind, where, seconds)


def open_both(
    bundle: Path | str,
    model: Model,
    device: torch.device,
    *,
    variant: str | None = None,
    lora: Sequence[Path | str] = (),
    judge: Judge | None = None,
    cache: Store | None,
    progress: Progress,
) -> Opened:
    """Opens a bundle and the pipeline that it was made from, with the adapters that were merged into its weights.

    The bundle's own contract judges where nobody else does.

    Raises:
        InvalidInput: A file of adapters does not fit the pipeline.
        UsageError: A file of adapters is missing, or is another.
        InvalidBundle: The bundle is damaged or altered.
        InvalidModel: The folder is not the pipeline that the bundle was made from.
        InvalidPlan: The plan in the bundle does not follow its schema.
        StorageError: Reading failed.
    """
    opened, plan, contract = _bundle_and_contract(bundle, judge)
    adapters = recorded_adapters(opened.manifest, lora)
    folder = read_source(opened.manifest, model, variant=variant)
    check_source(opened.manifest.source.files, folder, cache=cache, progress=progress)
    folder = with_adapters(folder, adapters)
    return Opened(opened, plan, contract, folder, device, cache, progress)


def open_with_reference(
    bundle: Path | str, reference: Path | str, *, judge: Judge | None = None, progress: Progress
) -> Opened:
    """Opens a bundle and a stored reference of it, which stands for the pipeline.

    Raises:
        InvalidBundle: The bundle is damaged or altered.
        InvalidInput: The reference is none, was altered, or is of another bundle.
        InvalidPlan: The plan in the bundle does not follow its schema.
        StorageError: Reading failed.
    """
    opened, plan, contract = _bundle_and_contract(bundle, judge)
    stored = read_reference(Path(reference), opened, plan)
    return Opened(opened, plan, contract, None, CPU, None, progress, stored)


def _bundle_and_contract(bundle: Path | str, judge: Judge | None) -> tuple[Bundle, Plan, Contract]:
    """A bundle, its plan, and what judges it: its own contract where nobody else does."""
    opened = read_bundle(bundle)
    manifest = opened.manifest
    plan = plan_from_json(manifest.plan, source=f"{opened.path.name}: plan")
    own = Contract(manifest.resolved.gates)
    if judge is None:
        return opened, plan, own
    name = manifest.target.name
    if name not in list_targets():
        stored = f"{quoted(name)} is a target of your own: bounds that are left to the target are those of its file in the bundle"
        contract = judge.contract(plan, manifest.target.profile)
        return opened, plan, replace(contract, findings=(*contract.findings, stored))
    # Not the profile in the bundle: whoever made it could have asked for less there.
    return opened, plan, judge.contract(plan, load_target(name))


def stored_runs(
    opened: Opened, *, check: Callable[[Sequence[RunSpec]], None] | None = None
) -> Runs:
    """What a stored reference has of the runs; the runtime is audited here.

    Args:
        opened: With the reference.
        check: Refuses runs that are not wanted.
    """
    stored = opened.reference
    assert stored is not None, "there is no stored reference"
    if check is not None:
        check(stored.specs)
    audited = None
    if stored.model is not None:
        resolved = asked_of(opened.bundle, stored.model.resolved)
        audits = audit_bundle(opened.bundle, resolved, opened.progress)
        audited = Audited(stored.model, audits)
    computed = ", ".join(f"{name} {one}" for name, one in stored.versions.items() if name in _NAMED)
    notes = [f"the reference was stored in {stored.name}, computed with {computed}"]
    use = ReferenceUse(notes=notes + ([] if stored.model is None else stored.model.notes))
    return Runs(stored.specs, stored.recorded, stored.other_shape, use, audited, UNKNOWN)


def run_reference(
    opened: Opened,
    request: Request,
    work: Path,
    *,
    told: bool,
    check: Callable[[Sequence[RunSpec]], None] | None = None,
) -> Runs:
    """Runs the reference, once for each prompt and seed, and for a dynamic bundle at another shape.

    Args:
        opened: What takes part.
        request: What is run.
        work: A folder that takes the runs; it lasts as long as they are used.
        told: Whether an estimate of the time is wanted.
        check: Refuses runs that are not wanted, before any is made.
    """
    bundle, progress = opened.bundle, opened.progress
    manifest = bundle.manifest
    assert opened.folder is not None, "a stored reference is not run"
    times = CallTimes()
    reference = Reference(
        opened.folder,
        bundle,
        work=work,
        store=opened.cache,
        device=opened.device,
        times=times,
        progress=progress,
    )
    given = load_files(request.call or {}, call_parameters(reference.pipeline))
    call = {**restore_call(manifest.call), **given}
    check_call(manifest, call)
    specs = run_specs(
        reference.chosen_call(call, request.steps),
        seed=request.seed,
        seeds=request.seeds,
        prompts=request.prompts,
        name=type(reference.pipeline).__name__,
        complete=reference.complete,
    )
    specs = tuple(RunSpec(reference.complete(spec.call), spec.seed) for spec in specs)
    if check is not None:
        check(specs)
    audited = _audited(opened)
    outlook = UNKNOWN
    # What a GPU takes tells nothing of what the processor does.
    if audited is not None and told and is_cpu(opened.device):
        model, audits = audited.quantized, audited.audits
        assert isinstance(model, QuantizedModel), "a stored reference is not run"
        outlook = outlook_of(bundle, model, audits, reference, specs, progress)
    recorded = tuple(reference.run(spec, outlook) for spec in specs)
    other = None
    if manifest.shapes == "dynamic":
        other = reference.run_at_other_shape(specs[0], recorded[0].made.products)
    parameters = reference.parameters
    # Before the artifact's pipeline is built: its weights need not be in memory beside these.
    reference.release()
    give_back()
    return Runs(specs, recorded, other, reference.use, audited, outlook, parameters, times)


def _audited(opened: Opened) -> Audited | None:
    """The quantized model, and its audit; None of a bundle that is not quantized.

    An audit opens every graph by itself: most runtimes hold none of the rungs' own yet.
    """
    bundle, plan, progress = opened.bundle, opened.plan, opened.progress
    if not quantized_wheres(bundle) and not plan.quantizes_artifacts:
        return None
    assert opened.folder is not None, "a stored reference has its graphs"
    found = quantized_model(bundle, plan, opened.folder, progress=progress)
    audits = audit_bundle(bundle, asked_of(bundle, found.resolved), progress)
    give_back()
    return Audited(found, audits)
