"""The verification of a bundle: PyTorch runs, the artifact is compared, the plan judges, a report tells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from qdx.exporter.devices import choose_device
from qdx.exporter.errors import UsageError, quoted
from qdx.exporter.progress import SILENT, Progress
from qdx.runtime.methods import WrongShape
from qdx.runtime.sizes import in_the_users_words
from qdx.verification.compare import Comparison
from qdx.verification.judge.evaluate import gates_of
from qdx.verification.measure.score import load_score
from qdx.verification.report.folder import clear_report, write_report
from qdx.verification.report.model import Report
from qdx.verification.run import Request, open_both, run_reference

if TYPE_CHECKING:
    from qdx.cache.store import Store
    from qdx.exporter.capture.model import Model

__all__ = ["verify"]


def verify(
    bundle: Path | str,
    *,
    model: Model,
    variant: str | None = None,
    report: Path | str | None = None,
    seed: int = 0,
    seeds: int = 1,
    steps: int | None = None,
    prompts: Sequence[str] | None = None,
    call: dict[str, Any] | None = None,
    score: str | None = None,
    localize: bool = False,
    budget_s: float | None = None,
    lora: Sequence[Path | str] = (),
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
        model: The pipeline folder it was made from, or the pipeline in memory.
        variant: Of the stored weights, where it is to be checked against what the bundle was made from.
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
        lora: The files of adapters that the bundle was exported with; their scales are the bundle's.
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
        UsageError: The pipeline or the artifact does not take this call, the score function is invalid, or the
            report folder lies in the bundle or holds files of others.
        RuntimeMissing: The runtime is not installed, or there is no such device.
        StorageError: Reading or writing failed.
    """
    destination = None if report is None else Path(report)
    if destination is not None:
        _check_outside(destination, Path(bundle))
    computing = choose_device(device, progress.say)
    opened = open_both(
        bundle, model, computing, variant=variant, lora=lora, cache=cache, progress=progress
    )
    judge = None if score is None else load_score(score)
    if destination is not None:
        clear_report(destination)
    methods = opened.methods()
    with TemporaryDirectory(prefix="qdx-verify-") as folder:
        work = Path(folder)
        request = Request(seed, seeds, steps, prompts, call)
        # A budget says by itself how long comparing takes.
        runs = run_reference(opened, request, work, told=budget_s is None)
        comparison = Comparison(opened, methods, runs, work, judge, budget_s)
        try:
            measured = comparison.report(localize=localize)
        except WrongShape as error:
            manifest = opened.bundle.manifest
            raise in_the_users_words(error, manifest, runs.specs[0].call) from error
    found = replace(measured, gates=gates_of(measured.contract, measured.stored))
    if destination is not None:
        write_report(found, destination)
    return found


def _check_outside(report: Path, bundle: Path) -> None:
    """Refuses a report inside the bundle: with one more file it is no bundle."""
    if report.resolve().is_relative_to(bundle.resolve()):
        raise UsageError(
            f"--report: {quoted(report)} lies in {quoted(bundle)}, expected a folder elsewhere"
        )
