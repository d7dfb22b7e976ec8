"""`qdx analyze`: what each part of a model tolerates on a target."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qdx.analyze.settings import read_parts
from qdx.cli.analysis_options import (
    AnalyzedModel,
    AnalyzedTarget,
    Calls,
    Prompts,
    Tried,
    ValuesMemory,
)
from qdx.cli.options import (
    Address,
    AsJson,
    Call,
    Engine,
    Force,
    Fresh,
    NoCache,
    Setup,
    Variant,
    Workers,
    open_cache,
    read_call,
    read_cluster,
    read_names,
    read_setup,
)
from qdx.cli.output import emit, say
from qdx.cli.progress import progress_bars
from qdx.exporter.errors import UsageError

__all__ = ["command"]


def command(
    model: AnalyzedModel,
    target: AnalyzedTarget,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder to write.")],
    plan: Annotated[
        str | None,
        typer.Option(
            "--plan",
            metavar="PLAN",
            help="Whose calibration, smoothing and float types hold; floats by default.",
        ),
    ] = None,
    call: Call = None,
    setup: Setup = None,
    variant: Variant = None,
    components: Annotated[
        str | None,
        typer.Option(
            "--components", metavar="NAMES", help="Comma-separated; the denoisers by default."
        ),
    ] = None,
    prompts: Prompts = None,
    options: Tried = None,
    calls: Calls = None,
    latency: Annotated[
        str,
        typer.Option(
            "--latency",
            metavar="HOW",
            help="What every option takes, for budgets of latency: measured in the target's runtime, half a minute for each "
            "option of a small model; declared by vendors' numbers of the device; auto, which measures where the runtime runs "
            "here; or none.",
        ),
    ] = "auto",
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads",
            metavar="N",
            min=1,
            max=4096,
            help="Of the runtime that is timed; its own choice by default. With 1, processor time is measured.",
        ),
    ] = None,
    parts: Annotated[
        str | None,
        typer.Option(
            "--parts",
            metavar="LIST",
            help="Of noise, gradients, trajectory, ablations, what is found out, noise always. All by default, and what goes over whole runs for as many options as are affordable.",
        ),
    ] = None,
    trace: Annotated[
        bool,
        typer.Option(
            "--trace",
            help="Gradients with the Hessian's trace: a second backward pass for every weight, on a few steps.",
        ),
    ] = False,
    workers: Workers = None,
    engine: Engine = "local",
    address: Address = None,
    memory: ValuesMemory = None,
    fresh: Fresh = False,
    no_cache: NoCache = False,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Measure what every option of every part of a model does to its output."""
    arguments, methods = read_call(call), read_setup(setup)
    cluster = read_cluster(engine, address)
    # All of this is checked before anything heavy is imported.
    from qdx.analyze.folder_check import check_folder
    from qdx.analyze.latency_table import read_how
    from qdx.cache.place import read_size
    from qdx.calibration.prompts import read_prompts
    from qdx.cli.early import check_model
    from qdx.exporter.plan import load_plan
    from qdx.targets import load_target

    check_folder(output, force=force)
    how = read_how(latency)
    wanted = None if parts is None else read_parts(parts)
    if trace and wanted is not None and "gradients" not in wanted:
        raise UsageError("--trace: is of gradients", hint="give --parts gradients with it")
    load_target(target)
    if plan is not None:
        load_plan(plan)
    check_model(model)
    texts = None if prompts is None else read_prompts(prompts)
    memory_bytes = None if memory is None else read_size(memory, source="--memory")

    from qdx.analyze.analyze import analyze
    from qdx.analyze.settings import AnalysisSettings
    from qdx.cli.analysis_tables import tables_of

    settings = AnalysisSettings(
        plan=plan,
        call=arguments,
        components=read_names("--components", components),
        setup=methods,
        variant=variant,
        prompts=texts,
        options=read_names("--options", options),
        calls=calls,
        workers=workers,
        memory_bytes=memory_bytes,
        cache=open_cache(no_cache=no_cache),
        fresh=fresh,
        latency=how,
        threads=threads,
        cluster=cluster,
        parts=wanted,
        trace=trace,
    )
    with progress_bars() as progress:
        analysis = analyze(
            model,
            target=target,
            output=output,
            settings=settings,
            force=force,
            progress=progress,
        )
    emit(analysis, as_json=as_json, text=tables_of(analysis))
    say(f"wrote {output}")
