"""`qdx verify`: hold a bundle against the pipeline it was made from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from qdx.cli.options import (
    SEED_LIMIT,
    AsJson,
    Bundle,
    Call,
    Device,
    JudgeGates,
    JudgePlan,
    Lora,
    NoCache,
    Variant,
    open_cache,
    read_budget,
    read_call,
)
from qdx.cli.output import emit, leave_with, plain, say
from qdx.cli.progress import progress_bars
from qdx.verification.judge.drop import DROP_DB
from qdx.verification.sources import check_sources

__all__ = ["command"]


def command(
    bundle: Bundle,
    model: Annotated[
        Path | None,
        typer.Option("--model", metavar="MODEL", help="The diffusers pipeline folder."),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            "--reference",
            metavar="DIR",
            help="A stored reference, which stands for the model: see --save-reference.",
        ),
    ] = None,
    save_reference: Annotated[
        Path | None,
        typer.Option(
            "--save-reference",
            metavar="DIR",
            help="Store what PyTorch does, for verifications without the model.",
        ),
    ] = None,
    variant: Variant = None,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report", metavar="DIR", help="Write report.json, junit.xml and report.html."
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=SEED_LIMIT, help="Seed of the first noise.")
    ] = 0,
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, max=1000, help="Number of seeds, for intervals.")
    ] = 1,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Denoising steps.")] = None,
    prompts: Annotated[
        Path | None,
        typer.Option("--prompts", metavar="FILE", help="Prompts, one on each line, each run."),
    ] = None,
    score: Annotated[
        str | None,
        typer.Option(
            "--score",
            metavar="FILE:FUNCTION",
            help="Python function that scores a picture by its prompt, 0 to 1. Runs that file's code.",
        ),
    ] = None,
    localize: Annotated[
        bool, typer.Option("--localize", help="Name the sites at which the error enters.")
    ] = False,
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget",
            metavar="TIME",
            help="Time limit for comparing calls, such as 90s, 30min or 2h. Calls that do not fit are left out and listed. "
            "Default: all calls of small models, some of large ones.",
        ),
    ] = None,
    plan: JudgePlan = None,
    gates: JudgeGates = None,
    baseline: Annotated[
        Path | None,
        typer.Option(
            "--baseline",
            metavar="REPORT",
            help="Fail where something is worse than in this earlier report: report.json, or the folder of it.",
        ),
    ] = None,
    baseline_drop_db: Annotated[
        float | None,
        typer.Option(
            "--baseline-drop-db",
            metavar="DB",
            help=f"How many decibels worse than the baseline is accepted; {DROP_DB:g} by default.",
        ),
    ] = None,
    call: Call = None,
    lora: Lora = None,
    device: Device = "cpu",
    no_cache: NoCache = False,
    as_json: AsJson = False,
) -> None:
    """Verify a bundle against its gates. Exit status 1 where one fails."""
    from qdx.cli.early import check_judge

    arguments = read_call(call)
    budget_s = None if budget is None else read_budget(budget)
    check_sources(model, reference)
    check_judge(plan, gates, baseline, baseline_drop_db, reference)
    _check_early(bundle, model, arguments or {}, report)
    from qdx.calibration.prompts import read_prompts

    texts = None if prompts is None else read_prompts(prompts)
    from qdx.verification.verify import verify

    with progress_bars() as progress:
        result = verify(
            bundle,
            model=model,
            reference=reference,
            save_reference=save_reference,
            variant=variant,
            report=report,
            seed=seed,
            seeds=seeds,
            steps=steps,
            prompts=texts,
            call=arguments,
            score=score,
            localize=localize,
            budget_s=budget_s,
            plan=plan,
            gates=gates,
            baseline=baseline,
            baseline_drop_db=baseline_drop_db,
            lora=lora or [],
            device=device,
            cache=open_cache(no_cache=no_cache),
            progress=progress,
        )
    emit(result, as_json=as_json, text=str(result))
    for written in (report, save_reference):
        if written is not None:
            say(f"wrote {written}")
    # Not `if failed`: whatever is not plainly passed has failed.
    found = plain(result)
    unlocalized = found.get("lockstep") and not localize and reference is None
    leave_with(
        ok=found.get("ok") is True,
        hint="--localize names the operations at which the error enters" if unlocalized else None,
    )


def _check_early(
    bundle: Path, model: Path | None, arguments: dict[str, Any], report: Path | None
) -> None:
    """Looks at the bundle and the model before anything heavy is imported; the report folder is told of a refusal."""
    from qdx.cli.early import check_bundle_and_model, check_call
    from qdx.verification.report.refusal import refusals_told

    with refusals_told(bundle, report):
        check_bundle_and_model(bundle, model)
        check_call(bundle, arguments)
