"""`qdx analyze`: what each part of a model tolerates on a target."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qdx.analyze.settings import read_parts
from qdx.cli.analysis_tables import further_tables
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
from qdx.cli.output import emit, say, size, table
from qdx.cli.progress import progress_bars
from qdx.exporter.errors import UsageError

if TYPE_CHECKING:
    from qdx.analyze.analysis import Analysis, MeanNoise
    from qdx.analyze.latency_table import LatencyTable

__all__ = ["command"]


def command(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The diffusers pipeline folder.")],
    target: Annotated[
        str, typer.Option("--target", metavar="TARGET", help="A target's name or a TOML file.")
    ],
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
    prompts: Annotated[
        Path | None,
        typer.Option("--calib", metavar="FILE", help="Prompts to run with, one each line."),
    ] = None,
    options: Annotated[
        str | None,
        typer.Option(
            "--options",
            metavar="LIST",
            help="What to try, such as int8,int4:block32,int8/int8; what the target lacks is simulated. "
            "All that the target has by default.",
        ),
    ] = None,
    calls: Annotated[
        int | None,
        typer.Option(
            "--calls",
            metavar="N",
            min=1,
            max=100_000,
            help="Steps measured, spread over the schedule and the runs, with all branches of guidance. "
            "Default: all steps, the last two in every run, up to 32.",
        ),
    ] = None,
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
    memory: Annotated[
        str | None,
        typer.Option(
            "--memory",
            metavar="SIZE",
            help="Memory for values of float runs, such as 4GB; half of what is free by default. With less, more is computed again.",
        ),
    ] = None,
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
    emit(analysis, as_json=as_json, text=_words(analysis))
    say(f"wrote {output}")


def _words(analysis: Analysis) -> str:
    """For each graph and option what it costs and does as a whole, and which groups it hurts most."""
    parts = []
    for where in analysis.wheres:
        rows = []
        for option in analysis.options[1:]:
            whole = analysis.cumulative.get((where, option.id))
            if whole is None:
                continue
            groups = [one for one in analysis.groups_of(where) if option.id in one.options]
            single = [(_noise(analysis.single[one.id, option.id]), one) for one in groups]
            single.sort(key=lambda pair: (-pair[0], pair[1].id))
            held = sum(one.offered(option.id).bytes for one in groups)
            floats = sum(one.offers[0].bytes for one in groups)
            rows.append(
                (
                    option.label,
                    str(len(groups)),
                    f"{size(floats)} to {size(held)}",
                    _decibels(whole.prediction),
                    _decibels(whole.guidance),
                    ", ".join(f"{one.sites[0]} {_in_db(noise)}" for noise, one in single[:1]),
                )
            )
        columns = (
            "option",
            "groups",
            "weights",
            "all of them, dB",
            "guidance, dB",
            "worst alone, dB",
        )
        parts.append(f"{where}\n{table(columns, rows)}")
    if analysis.latency is not None:
        parts += [_times(analysis, one) for one in analysis.latency.graphs]
    parts += further_tables(analysis)
    return "\n\n".join(parts)


def _times(analysis: Analysis, one: LatencyTable) -> str:
    """What a graph takes where all that can has one option, and how far off the sum of its operations is."""
    from qdx.analyze.latency_table import TRUSTED

    if one.source == "declared":
        rows = [(o.label, f"{one.everywhere_ms(o.id):.3g}") for o in analysis.options]
        found = table(("option everywhere", "ms"), rows)
        return f"{one.where}: declared by what is said of {one.device}, not measured\n{found}"
    floats = next(whole.ms for whole in one.whole if whole.option == 0)
    labels = {option.id: option.label for option in analysis.options}
    measured = [
        (
            labels[whole.option],
            f"{whole.ms:.4g}",
            f"{floats / whole.ms:.2f}",
            f"{whole.clock_ms:.4g}",
        )
        for whole in one.whole
    ]
    found = table(("option everywhere", "ms", "times as fast", "sum of operations, ms"), measured)
    machine = one.machine
    assert machine is not None
    threads = "the runtime's own number of" if machine.threads is None else str(machine.threads)
    words = [f"{one.where}: measured, {machine.clock} time, {threads} threads", found]
    if (off := one.farthest_off) is not None:
        words.append(f"options drawn at random: predicted within {off:.0%} of what was measured")
        if off > TRUSTED:
            words.append("budgets of latency are no more certain than that")
    return "\n".join(words)


def _noise(row: MeanNoise) -> float:
    return math.inf if row.prediction is None else row.prediction


def _decibels(noise: float | None) -> str:
    return "-" if noise is None else _in_db(noise)


def _in_db(noise: float) -> str:
    return "exact" if noise == 0 else "-" if math.isinf(noise) else f"{-10 * math.log10(noise):.1f}"
