"""The verification of a bundle, from its digests to the finished pictures."""

from __future__ import annotations

import inspect
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import qdx
from qdx.backends.registry import get_backend
from qdx.bundle.reader import Bundle, read_bundle
from qdx.exporter.capture.arguments import complete_call, other_call
from qdx.exporter.capture.folder import PipelineFolder, read_pipeline_folder
from qdx.exporter.capture.materialize import load_pipeline
from qdx.exporter.capture.recorded_call import restore_call
from qdx.exporter.errors import UsageError, quoted
from qdx.exporter.plan.load import plan_from_json
from qdx.exporter.progress import SILENT, Progress
from qdx.runtime.pipeline import attach, open_methods, open_skeleton
from qdx.runtime.source import check_source
from qdx.verify.acceptance import gates_of
from qdx.verify.components import MethodResult, compare_calls
from qdx.verify.folder import clear_report, write_report
from qdx.verify.picture import PipelineResult, Products, attempt, compare_products, generate
from qdx.verify.reference import MethodRecord, record_calls
from qdx.verify.report import Report

if TYPE_CHECKING:
    from qdx.runtime.methods import TargetMethod

__all__ = ["verify"]

# Where neither the user nor the bundle says how many steps: the pipeline's own number, up to this.
_STEPS_LIMIT: Final = 20
# The second shape asks whether the artifact computes right at other sizes, not over many steps.
_STEPS_AT_OTHER_SHAPE: Final = 2


def verify(
    bundle: Path | str,
    *,
    model: Path | str,
    report: Path | str | None = None,
    seed: int = 0,
    steps: int | None = None,
    call: dict[str, Any] | None = None,
    progress: Progress = SILENT,
) -> Report:
    """Holds a bundle against the pipeline it was made from, and its numbers against its plan.

    The PyTorch pipeline runs once in float32, with every component call on record. The calls are
    replayed on the target one by one; then the bundle's own pipeline makes its picture of the same
    noise. A dynamic bundle is also compared at a second batch and size.

    Args:
        bundle: The bundle.
        model: The pipeline folder it was made from.
        report: Folder for report.json, junit.xml, report.html and the pictures; None writes nothing.
        seed: Of the noise.
        steps: Denoising steps; None takes those of the call or the pipeline's own number, at most 20.
        call: Arguments of the pipeline that replace those of the export. Images are given here again, or
            are seeded noise of the same size: a bundle names no file.
        progress: Shows the steps.

    Returns:
        The report. A gate that fails makes its `ok` False and raises nothing.

    Raises:
        InvalidBundle: The bundle is damaged or altered.
        InvalidModel: The folder is not the pipeline that the bundle was made from.
        InvalidPlan: The plan in the bundle does not follow its schema.
        UsageError: The pipeline or the artifact does not take this call, or the report folder lies
            in the bundle or holds files of others.
        RuntimeMissing: The runtime is not installed.
        StorageError: Reading or writing failed.
    """
    destination = None if report is None else Path(report)
    if destination is not None:
        _check_outside(destination, Path(bundle))
    opened = read_bundle(bundle)
    manifest = opened.manifest
    plan = plan_from_json(manifest.plan, source=f"{opened.path.name}: plan")
    folder = read_pipeline_folder(model)
    check_source(manifest.source.files, folder.path, progress=progress)
    if destination is not None:
        clear_report(destination)
    methods = open_methods(opened, progress=progress)
    reference = _Reference(folder, opened, methods, seed, progress)
    chosen = reference.chosen_call({**restore_call(manifest.call), **(call or {})}, steps)
    full = complete_call(reference.pipeline, chosen)
    products, records = reference.run(full)
    dynamic = manifest.shapes == "dynamic"
    other_records = reference.run_at_other_shape(full, products) if dynamic else None
    # Before the artifact's pipeline is built: its weights need not be in memory beside these.
    reference.release()
    results = compare_calls(records, methods, progress=progress)
    other_results: tuple[MethodResult, ...] | None = None
    if other_records is not None:
        other_results = compare_calls(other_records, methods, progress=progress)
    pipeline = _run_artifact(opened, model, methods, full, seed, products, progress)
    found = Report(
        bundle=opened.path.name,
        target=manifest.target.name,
        runtime=manifest.target.runtime,
        plan=plan.name or "unnamed",
        seed=seed,
        steps=full.get("num_inference_steps"),
        call=full,
        gates=gates_of(plan.gates, results, other_results, pipeline),
        methods=results,
        other_methods=other_results,
        pipeline=pipeline,
        versions=_versions(manifest.target.runtime),
    )
    if destination is not None:
        write_report(found, destination)
    return found


class _Reference:
    """The PyTorch pipeline, and its runs."""

    def __init__(
        self,
        folder: PipelineFolder,
        bundle: Bundle,
        methods: dict[str, TargetMethod],
        seed: int,
        progress: Progress,
    ) -> None:
        skeleton = load_pipeline(folder, progress=progress)
        self.pipeline: Any = skeleton.pipeline
        # Components that were left out of the bundle run in PyTorch on both sides.
        left_out = set(bundle.manifest.left_out)
        self._modules = {n: m for n, m in skeleton.modules.items() if n not in left_out}
        self._graphs = {
            where: frozenset(port.argument for port in method.inputs)
            for where, method in methods.items()
        }
        self._seed = seed
        self._progress = progress

    def chosen_call(self, call: dict[str, Any], steps: int | None) -> dict[str, Any]:
        """The arguments with a number of steps where the pipeline takes one."""
        parameters = inspect.signature(self.pipeline.__call__).parameters
        if steps is not None:
            return {**call, "num_inference_steps": steps}
        if "num_inference_steps" not in parameters or call.get("num_inference_steps") is not None:
            return call
        default = parameters["num_inference_steps"].default
        usual = default if isinstance(default, int) else _STEPS_LIMIT
        return {**call, "num_inference_steps": min(usual, _STEPS_LIMIT)}

    def run(self, call: dict[str, Any]) -> tuple[Products, dict[str, MethodRecord]]:
        """One run on record.

        Raises:
            UsageError: The pipeline does not take the call.
        """
        with self._progress.task("running the PyTorch reference"):
            try:
                return record_calls(
                    self._modules,
                    lambda: generate(self.pipeline, call, seed=self._seed),
                    graphs=self._graphs,
                )
            except (TypeError, ValueError) as error:
                name = type(self.pipeline).__name__
                raise UsageError(f"{name} rejects the call: {error}") from error

    def run_at_other_shape(
        self, call: dict[str, Any], products: Products
    ) -> dict[str, MethodRecord]:
        """A short run at another batch and size, on record."""
        other = other_call(self.pipeline, call, _size_pixels(products))
        if "num_inference_steps" in other:
            other["num_inference_steps"] = min(other["num_inference_steps"], _STEPS_AT_OTHER_SHAPE)
        return self.run(other)[1]

    def release(self) -> None:
        """Lets go of the weights."""
        self.pipeline = None
        self._modules = {}


def _run_artifact(
    bundle: Bundle,
    model: Path | str,
    methods: dict[str, TargetMethod],
    call: dict[str, Any],
    seed: int,
    reference: Products,
    progress: Progress,
) -> PipelineResult:
    """The bundle's own pipeline against what the reference made."""
    with progress.task(f"running the pipeline on {bundle.manifest.target.runtime}"):
        skeleton = open_skeleton(bundle, model=model)
        attach(skeleton, methods)
        products, error = attempt(skeleton.pipeline, call, seed=seed)
    return compare_products(reference, products, error)


def _size_pixels(products: Products) -> tuple[int, int] | None:
    """Height and width of the pictures; None where there are none."""
    for name in ("images", "frames"):
        if name in products and products[name].ndim >= 3:
            height, width = products[name].shape[-3:-1]
            return height, width
    return None


def _check_outside(report: Path, bundle: Path) -> None:
    """Refuses a report inside the bundle: with one more file it is no bundle."""
    if report.resolve().is_relative_to(bundle.resolve()):
        raise UsageError(
            f"--report: {quoted(report)} lies in {quoted(bundle)}, expected a folder elsewhere"
        )


def _versions(runtime: str) -> dict[str, str]:
    """Versions of everything that took part."""
    found = {"qdx": qdx.__version__, "python": platform.python_version()}
    for name in ("diffusers", "numpy", "torch", "torchmetrics", "transformers"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return {**found, **get_backend(runtime).versions()}
