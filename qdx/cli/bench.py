"""`qdx bench`: time and memory of bundles, and of what other tools exported."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qdx.cli.engines import compiled_lines
from qdx.cli.options import SEED_LIMIT, AsJson, Call, read_call
from qdx.cli.output import emit, size, table, visible
from qdx.cli.progress import progress_bars
from qdx.exporter.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qdx.bench.report import BenchReport

__all__ = ["as_text", "command"]


def command(
    bundles: Annotated[
        list[str],
        typer.Argument(
            metavar="BUNDLE...",
            help="Bundles; after the first also folders that other tools exported, as "
            "NAME=FOLDER or NAME=FOLDER:RUNTIME.",
        ),
    ],
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            metavar="MODEL",
            help="The diffusers pipeline folder: its calls in PyTorch are the inputs. "
            "Without it they are seeded values in the exported shapes.",
        ),
    ] = None,
    steps: Annotated[
        int, typer.Option("--steps", min=1, help="Denoising steps of the run with --model.")
    ] = 4,
    rounds: Annotated[
        int, typer.Option("--rounds", min=1, max=10_000, help="Counted calls of each method.")
    ] = 15,
    openings: Annotated[
        int,
        typer.Option(
            "--openings",
            min=1,
            max=1000,
            help="How often everything is opened anew, with a part of the rounds each: one "
            "artifact may differ from one opening to the next.",
        ),
    ] = 3,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Processor threads of the runtime.")
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=SEED_LIMIT, help="Seed of the inputs.")
    ] = 0,
    call: Call = None,
    as_json: AsJson = False,
) -> None:
    """Measure bundles in turns, each in a process of its own.

    Each round calls every one of them once, in an order of its own. Times depend on what else the machine does; the
    ratio to the first bundle, round by round, much less so.
    """
    arguments = read_call(call)
    if model is None and arguments is not None:
        raise UsageError(
            "--call is given without --model", hint="give the model, which takes the call"
        )
    # The first bundle is looked at before anything heavy is imported.
    from qdx.cli.early import check_first_bundle

    check_first_bundle(bundles[0])
    from qdx.bench.bench import bench

    with progress_bars() as progress:
        report = bench(
            bundles,
            model=model,
            call=arguments,
            steps=steps,
            rounds=rounds,
            openings=openings,
            threads=threads,
            seed=seed,
            progress=progress,
        )
    emit(report, as_json=as_json, text=as_text(report))


def as_text(report: BenchReport) -> str:
    """Two tables: times by method, and what is said of each contender as a whole."""
    first = report.contenders[0].name
    times = [
        (
            timing.where,
            timing.contender,
            f"{timing.median_ms:.2f}",
            f"{timing.ratio.median:.3f}",
            f"{timing.ratio.low:.3f} .. {timing.ratio.high:.3f}",
            f"{timing.cpu_ratio.median:.3f}",
        )
        for timing in report.timings
    ]
    whole = [
        (
            one.name,
            one.runtime,
            size(one.artifact_bytes),
            None if one.memory_bytes is None else size(one.memory_bytes),
            f"{one.opening_seconds:.1f}",
        )
        for one in report.contenders
    ]
    columns = ("call", "contender", "median ms", f"ratio to {first}", "95 % interval", "processor")
    return "\n\n".join([
        table(columns, times),
        table(("contender", "runtime", "artifact", "memory", "opening s"), whole),
        *_compiled(report),
    ])  # fmt: skip


def _compiled(report: BenchReport) -> Iterator[str]:
    """What engines were compiled for that do not run here, and that nothing of them was timed."""
    for one in report.contenders:
        if one.compiled:
            lines = [f"{visible(one.name)}: no engine was timed; the times are of {one.timed}"]
            for where, facts in one.compiled.items():
                lines += [f"  {where}: {line}" for line in compiled_lines(facts)]
            yield "\n".join(lines)
