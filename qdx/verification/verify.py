"""The verification of a bundle: PyTorch runs, the artifact is compared, the plan judges, a report tells."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from qdx.backends.device_kernels import keeping_kernels
from qdx.cache.kernels import StoredKernels
from qdx.cache.numbers import StoredNumbers
from qdx.exporter.devices import choose_device
from qdx.exporter.errors import UsageError
from qdx.exporter.progress import SILENT, Progress
from qdx.runtime.methods import WrongShape
from qdx.runtime.sizes import in_the_users_words
from qdx.verification.compare import Comparison
from qdx.verification.held import Held, held_against
from qdx.verification.judge.contract import read_judge
from qdx.verification.measure.answers import KIND as ANSWERS
from qdx.verification.measure.score import load_score
from qdx.verification.places import check_places
from qdx.verification.reference_writer import ReferenceWriter, check_output
from qdx.verification.report.folder import write_report
from qdx.verification.report.model import Report
from qdx.verification.report.place import check_place, clear_report
from qdx.verification.report.refusal import refusals_told
from qdx.verification.run import (
    Request,
    open_both,
    open_with_reference,
    run_reference,
    stored_runs,
)
from qdx.verification.sources import check_sources

if TYPE_CHECKING:
    from qdx.cache.store import Store
    from qdx.exporter.capture.model import Model
    from qdx.verification.measure.samples import RunSpec

__all__ = ["verify"]


def verify(
    bundle: Path | str,
    *,
    model: Model | None = None,
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
    plan: str | Path | None = None,
    gates: str | Path | None = None,
    baseline: str | Path | None = None,
    baseline_drop_db: float | None = None,
    reference: str | Path | None = None,
    save_reference: str | Path | None = None,
    device: str = "cpu",
    cache: Store | None = None,
    progress: Progress = SILENT,
) -> Report:
    """Holds a bundle against the pipeline it was made from, and its numbers against its plan.

    Example:
        Says what failed, and writes the pages::

            report = qdx.verify("bundle", model="MODEL", report="report")
            print([gate for gate in report.gates if not gate.ok])

    The PyTorch pipeline runs in float32, with every component call on record. The calls are replayed one by
    one, for a quantized bundle on each rung of the ladder: the quantized graph in PyTorch (a few calls of a large
    model), the runtime without its optimizations where it can (a few calls), and the runtime as shipped. Then the
    bundle's own pipeline makes its picture of the same noise. A dynamic bundle is also compared at a second batch and size.

    Args:
        bundle: The bundle.
        model: The pipeline folder it was made from, or the pipeline in memory; None with a `reference`.
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
        plan: A preset's name or a plan file whose gates judge instead of those in the bundle.
        gates: A JSON file with what a plan has under `gates`, which judges instead; not with `plan`.
        baseline: An earlier report of the same target, call and runs, its `report.json` or the folder of that. What is
            worse than there is a gate that fails.
        baseline_drop_db: How much worse a measure in decibels may be than in the baseline; None for 1 dB.
        reference: A folder that `save_reference` wrote for this bundle, or one that is quantized likewise: it stands for
            the model, and its runs are those that are compared.
        save_reference: Folder for what PyTorch does, so that others verify the bundle without the model; see
            `qdx.verification.reference_record`.
        device: What computes in PyTorch, the reference and the quantized graph: `cpu`, `cuda`, `cuda:1` or `auto`.
        cache: Keeps the reference's runs, the answers of the quantized graphs, digests of files and what a runtime
            compiles on the device, so that the next
            verification of the same model and call finds them; None computes all of it and keeps nothing.
        progress: Shows the steps.

    Returns:
        The report. A gate that fails makes its `ok` False and raises nothing.

    Raises:
        InvalidBundle: The bundle is damaged or altered.
        InvalidModel: The folder is not the pipeline that the bundle was made from.
        InvalidInput: The baseline is no report, or was altered.
        InvalidPlan: The plan in the bundle, or what judges instead, does not follow its schema.
        UsageError: The pipeline or the artifact does not take this call, the score function is invalid, the
            report folder lies in the bundle or the model, or holds files of others, plan and gates are both given, or the baseline is
            a report of another target, call or other runs.
        RuntimeMissing: The runtime is not installed, or there is no such device.
        StorageError: Reading or writing failed.
    """
    began_s = time.monotonic()
    destination = None if report is None else Path(report)
    check_places(bundle, model, report=report, save_reference=save_reference)
    check_sources(model, reference)
    # What a runtime compiles on the device at the first call is kept as everything else is.
    kernels = None if cache is None else StoredKernels(lambda: cache)
    with refusals_told(bundle, report), keeping_kernels(kernels):
        judge = read_judge(plan, gates)
        held = held_against(baseline, baseline_drop_db)
        request = Request(seed, seeds, steps, prompts, call)
        if reference is not None:
            others = {
                "--variant": variant is not None,
                "--lora": bool(lora),
                "--device": device != "cpu",
                "--localize": localize,
                "--save-reference": save_reference is not None,
            }
            _check_alone(request, others)
            opened = open_with_reference(bundle, reference, judge=judge, progress=progress)
        else:
            assert model is not None, "there is neither a model nor a reference"
            computing = choose_device(device, progress.say)
            opened = open_both(
                bundle, model, computing, variant=variant, lora=lora, judge=judge, cache=cache, progress=progress
            )  # fmt: skip
        scoring = None if score is None else load_score(score)
        if held is not None:
            held.check_target(opened.bundle.manifest.target.name)
        if save_reference is not None:
            check_output(Path(save_reference), opened.bundle)
        if destination is not None:
            check_place(destination)
        methods = opened.methods()
        with TemporaryDirectory(prefix="qdx-verify-") as folder:
            work = Path(folder)
            check = partial(_accept, held, opened.bundle.manifest.target.name, destination)
            if opened.reference is not None:
                runs = stored_runs(opened, check=check)
            else:
                # A budget says by itself how long comparing takes.
                runs = run_reference(opened, request, work, told=budget_s is None, check=check)
            writer = None
            if save_reference is not None:
                memory = None if cache is None else StoredNumbers(cache, ANSWERS)
                writer = ReferenceWriter(Path(save_reference), opened.bundle, work, memory=memory)
            comparison = Comparison(
                opened, methods, runs, work, scoring, budget_s, writer, began_s=began_s
            )
            try:
                measured = comparison.report(localize=localize)
            except WrongShape as error:
                manifest = opened.bundle.manifest
                raise in_the_users_words(error, manifest, runs.specs[0].call) from error
        if held is not None:
            measured = held.with_baseline(measured)
        found = measured.judged()
        if destination is not None:
            write_report(found, destination)
    return found


def _accept(
    held: Held | None, target: str, destination: Path | None, specs: Sequence[RunSpec]
) -> None:
    """Takes the runs that are to be made: from here on, no earlier report stands for this verification.

    Not sooner: the earlier report may be the baseline, which an option of these runs may not fit.
    """
    if held is not None:
        held.check_runs(target, specs)
    if destination is not None:
        clear_report(destination)


def _check_alone(request: Request, others: Mapping[str, bool]) -> None:
    """Refuses what a stored reference cannot be asked for: its runs are those that were stored.

    Args:
        request: What is to be run.
        others: Other options, and whether they are given.
    """
    asked = {
        **others,
        "--seed": request.seed != 0,
        "--seeds": request.seeds != 1,
        "--steps": request.steps is not None,
        "--prompts": request.prompts is not None,
        "--call": request.call is not None,
    }
    given = [name for name, is_given in asked.items() if is_given]
    if given:
        raise UsageError(
            f"--reference: does not go together with {', '.join(given)}: what PyTorch did is stored, and the model is not there",
            hint="leave them out, or give --model instead of --reference",
        )
